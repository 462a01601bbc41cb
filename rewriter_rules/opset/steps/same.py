"""The hand-checked SAME set: steps that change wording or admitted types and nothing else.

Each line was read against both versions' specification, not only compared by signature. Downwards
the engine checks that the node's types are admitted and bridges or refuses otherwise.
"""

from __future__ import annotations

from vlmpass.rewriter_rules.opset.table import same

__all__: list[str] = []

same("""
Abs 6 13
Acos 7 22
Acosh 9 22
Add 7 13 14
ArgMax 12 13
ArgMin 12 13
Asin 7 22
Asinh 9 22
Atan 7 22
Atanh 9 22
AveragePool 10 11
Bernoulli 15 22
Cast 6 9 13
Cast 19 21 23
Cast 24 25 28
CastLike 19 21 23
CastLike 24 25
Ceil 6 13
Celu 12 28
Clip 12 13
Compress 11 28
Concat 11 13
Constant 12 13 19 21 23 24 25
Conv 1 11 22
ConvTranspose 1 11 22
Cos 7 22
Cosh 9 22
CumSum 11 14
DeformConv 19 22
DepthToSpace 11 13 28
DequantizeLinear 23 24 25 28
Det 11 22
Div 7 13 14
Dropout 12 13 22
Einsum 12 28
Elu 6 22
Equal 11 13
Erf 9 13
Exp 6 13
Expand 8 13
Flatten 1 9
Flatten 11 13 21 23 24 25
Floor 6 13
GRU 14 22
Gather 11 13
GatherElements 11 13
GatherND 12 13
Gemm 7 9
Gemm 11 13
GlobalAveragePool 1 22
GlobalLpPool 2 22
GlobalMaxPool 1 22
Greater 9 13
GreaterOrEqual 12 16
GridSample 20 22
HardSigmoid 6 22
HardSwish 14 22
Identity 1 13
Identity 14 16 19 21 23 24 25
If 11 13 16 19 21 23 24 25
InstanceNormalization 6 22
IsInf 10 20
IsNaN 9 13 20
LRN 1 13
LSTM 14 22
LeakyRelu 6 16
Less 9 13
LessOrEqual 12 16
Log 6 13
Loop 11 13 16 19 21 23 24 25
LpNormalization 1 22
LpPool 2 11
LpPool 18 22
MatMul 9 13
Max 12 13
MaxPool 10 11 12
MaxRoiPool 1 22
MaxUnpool 9 11 22
Mean 8 13
MeanVarianceNormalization 9 13
Min 12 13
Mish 18 22
Mod 10 13
Mul 7 13 14
Multinomial 7 22
Neg 6 13
NegativeLogLikelihoodLoss 12 13 22
NonMaxSuppression 10 11
NonZero 9 13
OneHot 11 28
Optional 15 28
OptionalGetElement 18 28
OptionalHasElement 18 28
PRelu 7 9
Pad 11 13
Pad 19 21 23 24 25
Pow 12 13 15
QLinearMatMul 10 21
QuantizeLinear 23 24 25 28
RNN 14 22
RandomNormal 1 22
RandomNormalLike 1 22
RandomUniform 1 22
RandomUniformLike 1 22
Reciprocal 6 13
ReduceL1 11 13
ReduceL2 11 13
ReduceLogSum 11 13
ReduceLogSum 18 28
ReduceLogSumExp 11 13
ReduceLogSumExp 18 28
ReduceMax 11 12 13
ReduceMean 11 13
ReduceMin 11 12 13
ReduceProd 11 13
ReduceSumSquare 11 13
Relu 6 13
Reshape 5 13
Reshape 14 19 21 23 24 25
ReverseSequence 10 28
RoiAlign 16 22
Round 11 22
Scan 11 16 19 21 23 24 25
ScatterElements 11 13
ScatterND 11 13
Selu 6 22
Shape 1 13
Shape 15 19 21 23 24 25
Sigmoid 6 13
Sign 9 13
Sin 7 22
Sinh 9 22
Size 1 13 19 21 23 24 25
Slice 11 13
SoftmaxCrossEntropyLoss 12 13
Softplus 1 22
Softsign 1 22
SpaceToDepth 1 13
SplitToSequence 11 24
Sqrt 6 13
Squeeze 13 21 23 24 25
Sub 7 13 14
Sum 8 13
Tan 7 22
Tanh 6 13
ThresholdedRelu 10 22
Tile 6 13
TopK 11 24
Transpose 1 13 21 23 24 25
Unique 11 28
Unsqueeze 13 21 23 24 25
Where 9 16
""")

# What the higher version adds has the old meaning as its default.
same(
    """
ArgMax 1 11 12
ArgMin 1 11 12
Attention 24 25
AveragePool 1 7
AveragePool 7 10
AveragePool 11 19
BitShift 11 28
Cast 13 19
Cast 23 24
CastLike 15 19
CastLike 23 24
Compress 9 11
Concat 4 11
Constant 1 9 11 12
ConstantOfShape 9 20 21 23 24 25
DepthToSpace 1 11
DequantizeLinear 10 13 19 21 23
Equal 7 11
EyeLike 9 22
Flatten 9 11
GRU 7 14
Gather 1 11
GatherND 11 12
Gemm 9 11
Greater 7 9
Hardmax 1 11
If 1 11
LSTM 7 14
LogSoftmax 1 11
LpPool 11 18
MatMul 1 9
Max 6 8 12
MaxPool 1 8 10
Mean 6 8
Min 6 8 12
Clip 11 12
Equal 13 19
Identity 13 14
Less 7 9
Mod 13 28
OneHot 9 11
OptionalGetElement 15 18
OptionalHasElement 15 18
Pad 13 18 19
Pow 7 12
QuantizeLinear 10 13 19 21 23
RNN 7 14
Range 11 27
ReduceL1 1 11
ReduceL2 1 11
ReduceLogSum 1 11
ReduceLogSumExp 1 11
ReduceMax 1 11
ReduceMax 18 20
ReduceMean 1 11
ReduceMin 1 11
ReduceMin 18 20
ReduceProd 1 11
ReduceSum 1 11
ReduceSumSquare 1 11
Relu 13 14
Reshape 13 14
Resize 13 18 19
Scan 9 11
ScatterElements 13 16 18
ScatterND 13 16 18
Shape 13 15
Slice 10 11
Softmax 1 11
SpaceToDepth 13 28
Split 2 11
Squeeze 1 11
Sum 6 8
TopK 10 11
Unsqueeze 1 11
""",
    down=False,
)

same("Loop 1 11", down=False)
same("PRelu 9 16", down=False)
same("BatchNormalization 14 15", up=False)
