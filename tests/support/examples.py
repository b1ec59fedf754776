"""Examples of property tests: all that a test wants in `deploy/test.sh`, fewer for who runs a file again and again."""

from typing import Any

from hypothesis import settings


def examples(most: int, **given: Any) -> settings:
    """Return settings with `most` examples under the profile `thorough`, and its share of them under any other."""
    share = settings().max_examples / settings.get_profile("thorough").max_examples
    return settings(max_examples=max(1, round(most * share)), **given)
