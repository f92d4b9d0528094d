"""A trained model out of its directory: the network and the preprocessing that belongs to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu import artifact
from insitu.data.decode import decode
from insitu.data.tensors import read_tensor

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TrainedModel:
    """What `insitu.load` gives.

    Attributes:
        model: takes images, uint8 [B, h, w, C], or tensors, float32 [B, h, w, C]; gives float32 [B, K] scores; not
            compiled.
        signature: inputs, outputs, class names and preprocessing.
    """

    model: "keras.Model"
    signature: artifact.Signature

    def preprocess(self, value: Any) -> np.ndarray:
        """One stored row as the model takes it, as in training.

        Args:
            value: an encoded image; or a tensor as a list, an array or an array's bytes.

        Returns:
            uint8 [h, w, C] of an image, float32 [h, w, C] of a tensor.

        Raises:
            BadImage, BadTensor: it cannot be read.
        """
        preprocessing = self.signature.preprocessing
        if isinstance(preprocessing, artifact.TensorPreprocessing):
            return read_tensor(value, shape=preprocessing.shape)
        return decode(value, size=preprocessing.size, channels=preprocessing.channels)


def load(directory: str) -> TrainedModel:
    """Verify a model directory's checksums and load it; nothing in it is executed.

    Args:
        directory: path or URI.

    Raises:
        UserError: no model directory, a file that is not what was written, or a preprocessing that
            this version does not have.
    """
    with artifact.verified(directory, setting="directory", part=artifact.MODEL) as local:
        signature = artifact.Signature.from_json(artifact.read_json(local / artifact.SIGNATURE))
        return TrainedModel(artifact.load_keras(local), signature)
