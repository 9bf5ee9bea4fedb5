"""What predicts: a head or model, opened, and the engine that it predicts with."""

from __future__ import annotations

from pipeline.finetuning import predictor
from pipeline.finetuning.model import Model
from pipeline.finetuning.predictor import Predictor
from pipeline.heads.head import Head
from pipeline.heads.resolve import Artefact
from pipeline.inference.options import ComputeOptions
from pipeline.store.cache import Cache
from pipeline.store.results import MODEL
from pipeline.trunks.engines.choice import engine_for
from pipeline.trunks.engines.devices import choose_device
from pipeline.trunks.engines.engine import Engine
from pipeline.trunks.engines.openvino_engine import place

#: Images from which on a network is converted where nothing but answers is wanted: as many as the
#: loader takes at once, so that no list is read further for it. Converting takes about as long as
#: it saves on a few hundred images, but is kept, and then every later run is the faster one.
MANY = 64


def open_predictor(artefact: Artefact, cache: Cache) -> Predictor:
    """Return what predicts with a head or a model.

    Raises:
        PipelineError: it is damaged or of another schema, or its trunk's weights are not there.
    """
    if artefact.kind is MODEL:
        return Model.open(artefact.folder, cache=cache).predictor
    return predictor.of_head(Head.open(artefact.folder), cache)


def engine_of(predictor: Predictor, options: ComputeOptions, cache: Cache, *, many: bool) -> Engine:
    """Return the engine for a head's trunk, or for a model's, converted as a whole.

    `auto` means what it means in `make_engine`, so that a head sees features of the engine that its
    table came from; but few images do not wait for a conversion that is not in the cache.

    Args:
        predictor: whose features are wanted.
        options: how to compute.
        cache: where converted networks are kept, for all commands.
        many: whether there are `MANY` images or more.

    Raises:
        UsageError: the device or the engine is not there, or cannot compute this.
    """
    device = choose_device(options.device)
    convert = many or options.engine == "openvino" or place(predictor.key, cache.compiled).exists()
    return engine_for(
        lambda: predictor.net, predictor.key, compiled=cache.compiled, device=device,
        asked=options.engine if convert else "torch",
        precision=predictor.precision_on(device, options.precision),
    )  # fmt: skip
