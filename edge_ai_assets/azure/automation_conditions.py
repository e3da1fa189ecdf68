"""How assets follow the one before them without being asked.

Sensors and the schedule start what the world starts (files, packages, drift, time). What comes after an
asset in the same location follows by condition, so that a hand-made materialization in the UI runs on to its
end too. Assets that a sensor's job already made in the same run are not made again.
"""

import dagster as dg

FOLLOWS = (
    # Remembered until acted upon: a move that is seen while something still runs is not forgotten.
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
