"""From scores to decisions: a threshold for each class, which may differ by the value of a column.

default: 0.5
classes: {Pneumonia: 0.3}
by:
  column: site
  values:
    north: {Pneumonia: 0.25}
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from insitu.errors import UserError
from insitu.recipe import read
from insitu.recipe.schema import Section

if TYPE_CHECKING:
    from pyspark.sql import Column

Threshold = Annotated[float, Field(ge=0, le=1)]


class ByColumn(Section):
    """Thresholds of the rows that have a value in a column; the value is compared as text."""

    column: str
    values: dict[str, dict[str, Threshold]]


class Thresholds(Section):
    """What a class's score has to reach.

    Of several labels each class that reaches its threshold is decided for; of one label the class with the highest
    score, if it reaches its own.
    """

    default: Threshold | None = None
    """Of classes that are not named; null is 0.5 where a row may have several labels, 0 where it has one."""
    classes: dict[str, Threshold] = Field(default_factory=dict)
    by: ByColumn | None = None

    def check(self, class_names: Sequence[str], *, setting: str) -> None:
        """Raise `UserError` where a class is named that the model does not have."""
        tables = [self.classes, *(self.by.values.values() if self.by else ())]
        unknown = sorted({name for table in tables for name in table} - set(class_names))
        if unknown:
            known = ", ".join(class_names)
            raise UserError(setting, f"the model has no class {unknown[0]!r}", f"its classes are {known}")

    def decision(self, scores: "Column", class_names: Sequence[str], *, one_label: bool, by: "Column") -> "Column":
        """The names of the classes that are decided for, array<string>.

        Args:
            scores: array<float>, in the order of `class_names`.
            class_names: the model's.
            one_label: whether a row has one label, not several.
            by: what `by.column` holds, as text; null where there is none.
        """
        from pyspark.sql import functions as F

        reached = []
        for place, (name, threshold) in enumerate(
            zip(class_names, self._thresholds(class_names, one_label=one_label, by=by), strict=True)
        ):
            decided = scores[place] >= threshold
            if one_label:
                decided &= F.call_function("array_position", scores, F.array_max(scores)) == place + 1
            reached.append(F.when(decided, F.lit(name)))
        return F.array_compact(F.array(*reached))

    def margin(self, scores: "Column", class_names: Sequence[str], *, one_label: bool, by: "Column") -> "Column":
        """How far a row is from another decision, float 0..1; the least is the most uncertain.

        Of one label the distance of the two highest scores, or of the highest from its threshold; of several that of
        any score from its threshold. The arguments are those of `decision`.
        """
        from pyspark.sql import functions as F

        thresholds = F.array(*self._thresholds(class_names, one_label=one_label, by=by))
        distances = F.zip_with(scores, thresholds, lambda score, threshold: F.abs(score - threshold))
        if not one_label:
            return F.array_min(distances)
        highest = F.sort_array(scores, asc=False)
        first = F.call_function("array_position", scores, highest[0])
        to_the_second = highest[0] - F.coalesce(highest[1], F.lit(0.0))
        return F.least(to_the_second, F.element_at(distances, first.cast("int")))

    def _thresholds(self, class_names: Sequence[str], *, one_label: bool, by: "Column") -> list["Column"]:
        from pyspark.sql import functions as F

        default = self.default if self.default is not None else 0.0 if one_label else 0.5
        found = []
        for name in class_names:
            threshold = F.lit(self.classes.get(name, default))
            for value, own in self.by.values.items() if self.by else ():
                if name in own:
                    threshold = F.when(by == F.lit(value), F.lit(own[name])).otherwise(threshold)
            found.append(threshold)
        return found


def read_thresholds(path: str | None) -> Thresholds:
    """Those of a YAML file; `Thresholds()` without one.

    Raises:
        UserError: no such file, or another form than that above.
    """
    return read(path, [], schema=Thresholds, setting="--thresholds") if path else Thresholds()
