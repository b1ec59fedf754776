import gc

from mandate.workers import interpreter


def test_worker_has_a_loop_on_libuv() -> None:
    loop = interpreter.make_event_loop()
    loop.close()

    assert type(loop).__module__ == "uvloop"


def test_collections_look_only_at_what_was_made_after_the_start() -> None:
    before = gc.get_threshold()
    try:
        interpreter.tune_collection()

        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] == interpreter.YOUNG_OBJECTS
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
