from pipeline.trunks import registry
from pipeline.trunks.sources import builtin, catalog


def test_the_names_read_from_the_sources_are_those_of_the_registry():
    assert catalog.names() == sorted(registry.names())
    assert catalog.BUILTIN == builtin.NAME
