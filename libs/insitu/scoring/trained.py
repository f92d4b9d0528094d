"""A trained model out of its directory: the network and the preprocessing that belongs to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from insitu import artifact
from insitu.data.decode import decode
from insitu.errors import UserError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TrainedModel:
    """What `insitu.load` gives.

    Attributes:
        model: takes uint8 [B, h, w, C], gives float32 [B, K] scores; not compiled.
        signature: inputs, outputs, class names and preprocessing.
    """

    model: "keras.Model"
    signature: artifact.Signature

    def preprocess(self, payload: bytes) -> np.ndarray:
        """One stored image → uint8 [h, w, C], as in training; raises `BadImage`."""
        preprocessing = self.signature.preprocessing
        return decode(payload, size=preprocessing.size, channels=preprocessing.channels)


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
        if signature.preprocessing.function != artifact.DECODER:
            function = signature.preprocessing.function
            raise UserError("directory", f"preprocessing is {function}, unknown here", "use the version that made it")
        return TrainedModel(artifact.load_keras(local), signature)
