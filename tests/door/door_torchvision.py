"""torchvision beside a PyTorch for CPUs, for its transforms alone.

Indexes give it built for GPUs: its kernels do not load there, and its import then fails for the
schemas of two operators that no export of the tests calls. They are declared, without kernels.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "nms does not exist" not in str(error):
        raise
    DECLARED = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
