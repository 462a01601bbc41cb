"""Element types that an opset lacks: bridged, carried in wider ones, rounded to."""
