"""LAYERS, the table of Keras's layers: what each is here.

A new layer is a line of LAYERS (with what it is made of in model/parts.py), and of keras_weights.VARIABLES where it has
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ferbatch.commands.models import keras_parts
from ferbatch.commands.models.keras_parts import Layer, Part, Parts, UnsupportedError
from ferbatch.core.names import escape


def parts_of(layer: Layer) -> Parts:
    """What a layer is here, its activation at its end; UnsupportedError for what cannot be carried over."""
    return LAYERS[layer.kind](layer) + _activation(layer)


def why_unknown(kind: str) -> str:
    """Why a layer cannot be carried over, whatever its configuration; empty where it can."""
    if kind.startswith("custom "):
        return "it is a layer of its author's own, whose code is no part of the file"
    said = "no such layer is known here: the guide's page convert.md names those that are"
    return "" if kind in LAYERS else NEVER.get(kind, said)


def _activation(layer: Layer) -> Parts:
    """The function that a layer ends with."""
    said = layer.config.get("activation")
    if isinstance(said, Mapping) and said.get("class_name") == "function":
        said = said.get("config")
    if isinstance(said, Mapping):  # a layer in a function's place
        inner = Layer(str(said.get("class_name")), said.get("config") or {}, keras=layer.keras, shapes=layer.shapes)
        if inner.kind not in FUNCTIONS:
            raise UnsupportedError(f"the activation {escape(inner.kind[:60])} is not known here")
        return LAYERS[inner.kind](inner)
    name = str(said or "linear").rpartition(">")[2]
    if name == "hard_sigmoid" and layer.keras < 3:
        name = "hard_sigmoid_2"
    if name not in ACTIVATIONS:
        known = ", ".join(one for one in ACTIVATIONS if not one.endswith("_2"))
        raise UnsupportedError(f"the activation {escape(name[:60])} is not known here (known: {known})")
    return [(dict(one), {}) for one in ACTIVATIONS[name]]


DROPOUTS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout")
RANDOM = (  # layers that change images at random
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomShear", "RandomPerspective"),
    *("RandomHeight", "RandomWidth", "RandomElasticTransform", "RandomContrast", "RandomBrightness", "RandomSharpness"),
    *("RandomSaturation", "RandomHue", "RandomColorJitter", "RandomColorDegeneration", "RandomGrayscale"),
    *("RandomPosterization", "RandomInvert", "RandomGaussianBlur", "RandomErasing", "RandAugment", "AugMix"),
    *("MixUp", "CutMix"),
)
TRAINING_ONLY = (*DROPOUTS, *RANDOM, "GaussianNoise", "ActivityRegularization")  # that do nothing to what is labelled
NEVER: Mapping[str, str] = {  # layers that no network of one image's pixels is made of, or that hold code
    "Lambda": "it is Python code, which ferbatch does not run, whoever wrote it",
    **dict.fromkeys(
        ("TFOpLambda", "TensorFlowOpLayer", "SlicingOpLambda"),
        "it is an operation of TensorFlow outside any layer: build the model of layers, as Add, Multiply and Rescaling",
    ),
    "TimeDistributed": "it is for sequences of images, and ferbatch labels one image at a time",
    "ConvLSTM2D": "it is for sequences of images, and ferbatch labels one image at a time",
    "Conv3D": "it is for films or volumes, and ferbatch labels one image at a time",
    "TFSMLayer": "it is a TensorFlow SavedModel in a layer's place, which holds no layers of Keras",
}
FUNCTIONS = ("ReLU", "LeakyReLU", "ELU", "Softmax")  # layers without arrays that may stand as an activation
LAYERS: dict[str, Callable[[Layer], Parts]] = {
    **dict.fromkeys(TRAINING_ONLY, keras_parts.nothing),
    "Activation": keras_parts.nothing,  # the function that every layer may end with is all of it
    "Rescaling": keras_parts.rescaling,
    "Normalization": keras_parts.normalization,
    "Conv2D": keras_parts.conv,
    "DepthwiseConv2D": keras_parts.depthwise_conv,
    "SeparableConv2D": keras_parts.separable_conv,
    "Dense": keras_parts.dense,
    "BatchNormalization": keras_parts.batch_norm,
    "ReLU": keras_parts.relu,
    "LeakyReLU": keras_parts.leaky_relu,
    "PReLU": keras_parts.prelu,
    "ThresholdedReLU": lambda layer: [
        ({"kind": "bounded_relu", "slope": 0.0, "threshold": layer.number("theta", 1.0), "most": None}, {})
    ],
    "ELU": lambda layer: [({"kind": "elu", "alpha": layer.number("alpha", 1.0)}, {})],
    "Softmax": keras_parts.softmax,
    "MaxPooling2D": keras_parts.pool("max_pool"),
    "AveragePooling2D": keras_parts.pool("average_pool"),
    "GlobalAveragePooling2D": keras_parts.global_pool({"kind": "global_average_pool"}, {"kind": "global_means"}),
    "GlobalMaxPooling2D": keras_parts.global_pool(
        {"kind": "global_max_pool", "keep": False}, {"kind": "global_max_pool", "keep": True}
    ),
    "ZeroPadding2D": keras_parts.pad(1, "padding"),
    "Cropping2D": keras_parts.pad(-1, "cropping"),
    "UpSampling2D": keras_parts.enlarge,
    "Resizing": keras_parts.resizing,
    "Flatten": keras_parts.flatten,
    "Reshape": keras_parts.reshape,
    "Add": keras_parts.merge("add"),
    "Subtract": keras_parts.merge("subtract"),
    "Multiply": keras_parts.merge("multiply"),
    "Average": keras_parts.merge("average"),
    "Maximum": keras_parts.merge("maximum"),
    "Minimum": keras_parts.merge("minimum"),
    "Concatenate": keras_parts.concatenate,
}
PLAIN = (  # functions that are called here as in Keras, and have no numbers
    *("tanh", "sigmoid", "hard_sigmoid", "hard_sigmoid_2", "swish", "hard_swish", "gelu", "mish", "selu", "softplus"),
    *("softsign", "exponential", "softmax"),
)
ACTIVATIONS: dict[str, tuple[Part, ...]] = {
    "linear": (),
    "relu": ({"kind": "leaky_relu", "slope": 0.0},),
    "relu6": ({"kind": "bounded_relu", "slope": 0.0, "threshold": 0.0, "most": 6.0},),
    "leaky_relu": ({"kind": "leaky_relu", "slope": 0.2},),  # the function's slope; a layer LeakyReLU says its own
    "elu": ({"kind": "elu", "alpha": 1.0},),
    "silu": ({"kind": "swish"},),
    "hard_silu": ({"kind": "hard_swish"},),
    **{name: ({"kind": name},) for name in PLAIN},
}
