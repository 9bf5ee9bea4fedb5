"""Heads fitted on tables of clouds, for the tests of stage two's verbs."""

from pipeline.heads.fit_head import fit_heads
from pipeline.heads.options import FitHeadOptions

QUICK = "ncm,nb,lda,ridge,knn"


def fitted(table, cache, clf="lda", **options):
    return fit_heads(table, FitHeadOptions(clf=clf, folds=3, jobs=1, **options), cache)


def folders(cache):
    return sorted(path.name for path in (cache.root / "heads").glob("*"))
