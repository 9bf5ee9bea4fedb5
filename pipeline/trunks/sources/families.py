"""The families of CNNs, how each is cut, and what is no CNN: the tables to read and to extend.

The cuts are found by the rule in `stages.cut`; they stand here so that they can be read, and the
contract tests hold them to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Family:
    """A torchvision family.

    Args:
        title: as its paper calls it.
        names: pattern of its members' names.
        member: the member that `cuts` describes and the contract tests load.
        cuts: place → the native module that opens it, for stages, and the neck where it has one.
        arguments: for the builder, so that the trunk is the one that the weights were made for.
        feature: the module whose averaged output is the feature, where no last Linear tells.
        old_names: (pattern, replacement) from the tensor names in the library's own old files.
    """

    title: str
    names: str
    member: str
    cuts: Mapping[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    feature: str | None = None
    old_names: tuple[str, str] | None = None

    def renamed(self, name: str) -> str:
        """Return a tensor's present name for the one that a file gives."""
        return re.sub(*self.old_names, name) if self.old_names else name


def _cuts(*opens: str, neck: str | None = None) -> dict[str, str]:
    """Name the openings from the end."""
    stages = ["stem", *[f"layer{i}" for i in range(6 - len(opens), 5)]]
    cuts = dict(zip(stages, opens, strict=True))
    return cuts if neck is None else {**cuts, "neck": neck}


_RESNET = _cuts("conv1", "layer1", "layer2", "layer3", "layer4")
_EFFICIENTNET = _cuts("features.0", "features.2", "features.3", "features.4", "features.6")
# What torchvision sets together with the ImageNet weights: they expect inputs scaled to ±1.
_INCEPTION = {"transform_input": True, "init_weights": True}

FAMILIES: tuple[Family, ...] = (
    Family(
        "AlexNet",
        "alexnet",
        "alexnet",
        _cuts("features.0", "features.3", "features.6", neck="classifier.0"),
    ),
    Family(
        "VGG",
        "vgg??",
        "vgg11",
        _cuts(
            "features.0",
            "features.3",
            "features.6",
            "features.11",
            "features.16",
            neck="classifier.0",
        ),
    ),
    Family(
        "VGG with BatchNorm",
        "vgg*_bn",
        "vgg11_bn",
        _cuts(
            "features.0",
            "features.4",
            "features.8",
            "features.15",
            "features.22",
            neck="classifier.0",
        ),
    ),
    Family("ResNet", "resnet*", "resnet18", _RESNET),
    Family("ResNeXt", "resnext*", "resnext50_32x4d", _RESNET),
    Family("Wide ResNet", "wide_resnet*", "wide_resnet50_2", _RESNET),
    Family(
        "RegNet",
        "regnet_*",
        "regnet_y_400mf",
        _cuts(
            "stem",
            "trunk_output.block1",
            "trunk_output.block2",
            "trunk_output.block3",
            "trunk_output.block4",
        ),
    ),
    Family(
        "DenseNet",
        "densenet*",
        "densenet121",
        _cuts(
            "features.conv0",
            "features.denseblock1",
            "features.transition1",
            "features.transition2",
            "features.transition3",
        ),
        # 2017's files say `norm.1` where the modules have since been called `norm1`.
        old_names=(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2"),
    ),
    Family(
        "SqueezeNet",
        "squeezenet*",
        "squeezenet1_1",
        _cuts("features.0", "features.3", "features.6", "features.9"),
        feature="features",  # its classifier is a convolution: the feature is what that one sees
    ),
    Family(
        "GoogLeNet",
        "googlenet",
        "googlenet",
        _cuts("conv1", "conv2", "inception3a", "inception4a", "inception5a"),
        arguments=_INCEPTION,
    ),
    Family(
        "Inception v3",
        "inception_v3",
        "inception_v3",
        _cuts("Conv2d_1a_3x3", "Conv2d_3b_1x1", "Mixed_5b", "Mixed_6a", "Mixed_7a"),
        arguments=_INCEPTION,
    ),
    Family(
        "MobileNet v2",
        "mobilenet_v2",
        "mobilenet_v2",
        _cuts("features.0", "features.2", "features.4", "features.7", "features.14"),
    ),
    Family(
        "MobileNet v3",
        "mobilenet_v3*",
        "mobilenet_v3_small",
        _cuts(
            "features.0",
            "features.1",
            "features.2",
            "features.4",
            "features.9",
            neck="classifier.0",
        ),
    ),
    Family(
        "ShuffleNet v2",
        "shufflenet_v2*",
        "shufflenet_v2_x0_5",
        _cuts("conv1", "stage2", "stage3", "stage4"),
    ),
    Family(
        "MnasNet",
        "mnasnet*",
        "mnasnet0_5",
        _cuts("layers.0", "layers.8", "layers.9", "layers.10", "layers.12"),
    ),
    Family("EfficientNet", "efficientnet_b*", "efficientnet_b0", _EFFICIENTNET),
    Family("EfficientNet v2", "efficientnet_v2*", "efficientnet_v2_s", _EFFICIENTNET),
    Family(
        "ConvNeXt",
        "convnext*",
        "convnext_tiny",
        _cuts("features.0", "features.2", "features.4", "features.6", neck="classifier.0"),
    ),
)

#: torchvision's classifiers that are no CNNs, by pattern.
NOT_CNN = {
    "vit_*": "a vision transformer",
    "swin_*": "a vision transformer",
    "maxvit*": "a vision transformer",
    "quantized_*": "a quantized network, which runs on integers",
}

_TRANSFORMER = "a vision transformer"
#: timm's modules whose models are no CNNs (with a pattern where only some of them are not).
#: Networks of convolutions with some attention among them (BoTNet, EdgeNeXt, EfficientViT of MIT,
#: FastViT, MobileNet v4 hybrid) count as CNNs: their activations are C×H×W maps throughout.
TIMM_NOT_CNN = {
    "beit": ("*", _TRANSFORMER),
    "cait": ("*", _TRANSFORMER),
    "coat": ("*", _TRANSFORMER),
    "convit": ("*", _TRANSFORMER),
    "crossvit": ("*", _TRANSFORMER),
    "davit": ("*", _TRANSFORMER),
    "deepseek_vit": ("*", _TRANSFORMER),
    "deit": ("*", _TRANSFORMER),
    "efficientformer": ("*", _TRANSFORMER),
    "efficientformer_v2": ("*", _TRANSFORMER),
    "efficientvit_msra": ("*", _TRANSFORMER),
    "eva": ("*", _TRANSFORMER),
    "gcvit": ("*", _TRANSFORMER),
    "gemma4_vit": ("*", _TRANSFORMER),
    "hiera": ("*", _TRANSFORMER),
    "hieradet_sam2": ("*", _TRANSFORMER),
    "iformer": ("*", _TRANSFORMER),
    "levit": ("*", _TRANSFORMER),
    "maxxvit": ("*", _TRANSFORMER),
    "mobilevit": ("*", _TRANSFORMER),
    "mvitv2": ("*", _TRANSFORMER),
    "naflexvit": ("*", _TRANSFORMER),
    "nest": ("*", _TRANSFORMER),
    "nextvit": ("*", _TRANSFORMER),
    "pit": ("*", _TRANSFORMER),
    "pvt_v2": ("*", _TRANSFORMER),
    "qwen3_vit": ("*", _TRANSFORMER),
    "shvit": ("*", _TRANSFORMER),
    "swiftformer": ("*", _TRANSFORMER),
    "swin_transformer": ("*", _TRANSFORMER),
    "swin_transformer_v2": ("*", _TRANSFORMER),
    "swin_transformer_v2_cr": ("*", _TRANSFORMER),
    "tiny_vit": ("*", _TRANSFORMER),
    "tnt": ("*", _TRANSFORMER),
    "twins": ("*", _TRANSFORMER),
    "visformer": ("*", _TRANSFORMER),
    "vision_transformer": ("*", _TRANSFORMER),
    "vision_transformer_hybrid": ("*", _TRANSFORMER),
    "vision_transformer_relpos": ("*", _TRANSFORMER),
    "vision_transformer_sam": ("*", _TRANSFORMER),
    "vitamin": ("*", _TRANSFORMER),
    "volo": ("*", _TRANSFORMER),
    "xcit": ("*", _TRANSFORMER),
    "metaformer": ("caformer*", _TRANSFORMER),
    "mlp_mixer": ("*", "an MLP mixer"),
    "mobilenetv5": ("*_enc", "an encoder without a feature vector"),
    "sequencer": ("*", "a recurrent network"),
    "efficientvim": ("*", "a state space model"),
    "mambaout": ("*", "a network on H×W×C activations"),
}


def family_of(name: str) -> Family | None:
    """Return the torchvision family that a name belongs to."""
    return next((family for family in FAMILIES if fnmatchcase(name, family.names)), None)
