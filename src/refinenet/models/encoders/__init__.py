"""Encoders: the published ResNets and MobileNetV2, and any suitable timm network; see `encoder.Encoder`."""
