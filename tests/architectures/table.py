"""All architectures."""

from __future__ import annotations

from decoder_models import DECODERS
from own_convolutions import CONVOLUTIONS
from own_images import IMAGES
from own_sequences import SEQUENCES
from sound_models import SOUND
from text_models import ENCODERS
from vision_models import VISION

ARCHITECTURES = (*ENCODERS, *DECODERS, *VISION, *SOUND, *CONVOLUTIONS, *IMAGES, *SEQUENCES)
