"""CloudWatch's alarms: looked at once a minute, and what they do as long as they are raised."""

import operator
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends

from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.steward.figures import MINUTE, Figures
from localcloud.aws.steward.metric_math import UnknownExpressionError, Value

Act = Callable[[str, float, float], None]  # with an action's ARN, the figure and the alarm's threshold
OK, ALARM, UNKNOWN = "OK", "ALARM", "INSUFFICIENT_DATA"
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanOrEqualToThreshold": operator.le,
    "LessThanThreshold": operator.lt,
}
MISSING = {"breaching": True, "notBreaching": False}  # how a period without data counts; otherwise not at all


class Alarms:
    """One region's."""

    def __init__(self, region: str, figures: Figures, act: Act) -> None:
        self._cloudwatch: Any = cloudwatch_backends[ACCOUNT][region]
        self._figures = figures
        self._act = act
        self._looked: dict[Any, int] = {}  # the minute, by the alarm

    def tick(self, now: float) -> None:
        """Look at each alarm, once a minute. A raised one acts each time, as on AWS those do whose action is a policy
        of Auto Scaling."""
        alarms = list(self._cloudwatch.alarms.values())
        self._looked = {alarm: minute for alarm, minute in self._looked.items() if alarm in alarms}
        for alarm in alarms:
            if alarm.rule or self._looked.get(alarm) == int(now // MINUTE):
                continue  # one of other alarms, or looked at
            self._looked[alarm] = int(now // MINUTE)
            self._look(alarm, now)

    def _look(self, alarm: Any, now: float) -> None:
        period = _period(alarm)
        end = int(now // period * period)
        starts = [end - period * (number + 1) for number in range(alarm.evaluation_periods)]
        try:
            values = [self._figures.of(alarm, start, period) for start in starts]
        except UnknownExpressionError as error:
            _enter(alarm, UNKNOWN, str(error), now)
            return
        _enter(alarm, judged(alarm, values), f"the figures of the last periods: {values}", now)
        newest = next((value for value in values if value is not None), None)
        if alarm.actions_enabled and newest is not None:
            for action in {ALARM: alarm.alarm_actions, OK: alarm.ok_actions}.get(alarm.state_value, ()):
                self._act(action, newest, alarm.threshold)


def judged(alarm: Any, values: Sequence[Value]) -> str:
    """The alarm's state by the figures of its last periods, the newest first."""
    breaks, fill = COMPARISONS[alarm.comparison_operator], MISSING.get(alarm.treat_missing_data)
    broken = [fill if value is None else breaks(value, alarm.threshold) for value in values]
    if all(each is None for each in broken):
        return str(alarm.state_value) if alarm.treat_missing_data == "ignore" else UNKNOWN
    return ALARM if broken.count(True) >= (alarm.datapoints_to_alarm or len(values)) else OK


def _period(alarm: Any) -> int:
    """In seconds."""
    told = [alarm.period, *(query.metric_stat.period for query in alarm.metric_data_queries if query.metric_stat)]
    return max(int(period or MINUTE) for period in told)


def _enter(alarm: Any, state: str, reason: str, now: float) -> None:
    if alarm.state_value != state:
        alarm.update_state(reason, "{}", state)
        alarm.state_updated_timestamp = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
