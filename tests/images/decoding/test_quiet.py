import ctypes
import logging
import sys
import threading
import warnings

import pytest

from pipeline.images.decoding.quiet import quiet


def complain():
    """Print as libjpeg does: through C's stderr."""
    library = ctypes.CDLL(None)
    library.fprintf(ctypes.c_void_p.in_dll(library, "stderr"), b"Corrupt JPEG data\n")
    library.fflush(None)


needs_c = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "stderr"), reason="no C stderr here")


@needs_c
def test_c_is_silent_inside_and_heard_outside(capfd):
    with quiet():
        complain()
    assert capfd.readouterr().err == ""
    complain()
    assert capfd.readouterr().err == "Corrupt JPEG data\n"


@needs_c
def test_c_stays_silent_until_the_last_thread_is_out(capfd):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with quiet():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(20)
    with quiet():
        pass
    complain()
    assert capfd.readouterr().err == ""
    leave.set()
    thread.join()
    complain()
    assert capfd.readouterr().err != ""


def warn(text, module="PIL.Image"):
    warnings.warn_explicit(text, UserWarning, "x.py", 1, module=module)


@pytest.mark.parametrize("where", ["here", "in another thread"])
def test_warnings_of_what_decodes_are_silenced_and_those_of_others_heard(where):
    def both():
        warn("Pillow's")
        warn("theirs", "numpy.core")

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            if where == "here":
                both()
            else:
                thread = threading.Thread(target=both)
                thread.start()
                thread.join()
        warn("after")
        messages = [str(warning.message) for warning in heard]
    assert messages == ["theirs", "after"]


def test_warnings_as_errors_are_silenced_too():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            warn("inside")
        with pytest.raises(UserWarning):
            warn("after")


def test_python_is_heard_inside(capfd):
    with quiet():
        sys.stderr.write("progress\n")
    assert capfd.readouterr().err == "progress\n"


def test_pillows_log_is_silenced_inside(caplog):
    log = logging.getLogger("PIL.TiffImagePlugin")
    with quiet():
        log.error("inside")
    log.error("outside")
    assert [record.message for record in caplog.records] == ["outside"]


def test_it_is_left_after_an_error_and_may_be_entered_again(capfd):
    with pytest.raises(ValueError), quiet(), quiet():
        raise ValueError
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warn("after")
    assert len(heard) == 1
