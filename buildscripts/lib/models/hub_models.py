"""Models of the Hugging Face hub that `buildscripts/models` fetches, each at a pinned commit, with its files.

Sizes and sha256 of large-v3, turbo and the distil models are those that several public projects pin for the same
commits. A download is compared with them, and with the hub's own listing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from buildscripts.lib.models.pins import PinnedFile


@dataclass(frozen=True)
class HubModel:
    folder: str
    """Folder below models/."""
    repo: str
    revision: str
    """Full commit id: branches and tags can move."""
    files: tuple[PinnedFile, ...]


# All multilingual Whisper models up to large-v2 share the tokenizer.
_TOKENIZER = PinnedFile("tokenizer.json", 2203239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab")
_VOCABULARY = PinnedFile("vocabulary.txt", 459861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913")

# large-v3 and its descendants have 128 mel bands and one language more.
_V3_PREPROCESSOR = PinnedFile(
    "preprocessor_config.json", 340, "7ccc62c6f2765af1f3b46c00c9b5894426835a05021c8b9c01eecb6dfb542711"
)
_V3_TOKENIZER = PinnedFile(
    "tokenizer.json", 2480617, "6d8cbd7cd0d8d5815e478dac67b85a26bbe77c1f5e0c6d76d1ce2abc0e5f21ca"
)
_V3_VOCABULARY = PinnedFile(
    "vocabulary.json", 1068114, "c69260f2ab26d659b7c398f9a2b2b48ed0df16c3b47d7326782fd9cba71690c1"
)

HUB_MODELS: Mapping[str, HubModel] = {
    "small": HubModel(
        "whisper-small-ct2",
        "Systran/faster-whisper-small",
        "536b0662742c02347bc0e980a01041f333bce120",
        (
            PinnedFile("config.json", 2370, "b55496ac7940a7ae47d2c01eab40edfd8701feec1229d9cce3b40014383fb828"),
            PinnedFile("model.bin", 483546902, "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671"),
            _TOKENIZER,
            _VOCABULARY,
        ),
    ),
    "medium": HubModel(
        "whisper-medium-ct2",
        "Systran/faster-whisper-medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
        (
            PinnedFile("config.json", 2257, "3622a2ddc41ec0e0fd4e68c13c6830f03b90c38d89aaad184de02c8c642cf807"),
            PinnedFile("model.bin", 1527906378, "9b45e1009dcc4ab601eff815b61d80e60ce3fd8c74c1a14f4a282258286b51ae"),
            _TOKENIZER,
            _VOCABULARY,
        ),
    ),
    "large-v3": HubModel(
        "whisper-large-v3-ct2",
        "Systran/faster-whisper-large-v3",
        "edaa852ec7e145841d8ffdb056a99866b5f0a478",
        (
            PinnedFile("config.json", 2394, "a9306624f5ec14270a014b647e5c316b6e03a662c369758d1b90697a7b0655b9"),
            PinnedFile("model.bin", 3087284237, "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1"),
            _V3_PREPROCESSOR,
            _V3_TOKENIZER,
            _V3_VOCABULARY,
        ),
    ),
    "turbo": HubModel(
        "whisper-turbo-ct2",
        "dropbox-dash/faster-whisper-large-v3-turbo",
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        (
            PinnedFile("config.json", 2263, "b0253ea6c0d3bea6b1e19e91a02acfd3b53f4467362efcb5a3e6b16c9b3a9b7e"),
            PinnedFile("model.bin", 1617884929, "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da"),
            _V3_PREPROCESSOR,
            PinnedFile("tokenizer.json", 2710337, "297b13372ac43916285644fb9687add3cc62ee2a1adb60da3dc25cc94c1871fd"),
            _V3_VOCABULARY,
        ),
    ),
    "distil-large-v3": HubModel(
        "whisper-distil-large-v3-ct2",
        "Systran/faster-distil-whisper-large-v3",
        "c3058b475261292e64a0412df1d2681c06260fab",
        (
            PinnedFile("config.json", 2690, "90c55f775cc4e0bb17293d0bf12f96557a486f20dea886fabd8e6075a3588b21"),
            PinnedFile("model.bin", 1512927867, "b79368e19b6623813609431a6e5ee309a71506701ebc49fd7820e692dec7c5f5"),
            _V3_PREPROCESSOR,
            _V3_TOKENIZER,
            _V3_VOCABULARY,
        ),
    ),
    "distil-small.en": HubModel(
        "whisper-distil-small.en-ct2",
        "Systran/faster-distil-whisper-small.en",
        "ef77d90526ccd62cde3808ee70626a01e5cf83e4",
        (
            PinnedFile("config.json", 2812, "b571ae8022a34c1df50876a65b5f813a5c22e5ee3b87bc0e4db5662dfc9c2c3d"),
            PinnedFile("model.bin", 332308257, "1187de3982cdcf962a2fb8f797e429fb4651b875b18fe9ce50b58b52fc9072b7"),
            PinnedFile(
                "preprocessor_config.json", 339, "a6a76d28c93edb273669eb9e0b0636a2bddbb1272c3261e47b7ca6dfdbac1b8d"
            ),
            PinnedFile("tokenizer.json", 2405466, "c9c77688528c0509abbd41873edab16384b8f041531b1d3092ab4d1d83a02a50"),
            PinnedFile("vocabulary.json", 825480, "4dadfee7c4a871665f65c06037f5f5ec893fb2d7f5eb4cf11063618e31dbe11a"),
        ),
    ),
}
"""By the name that `buildscripts/models` takes."""
