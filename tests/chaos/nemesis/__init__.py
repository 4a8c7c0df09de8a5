"""Faults for real processes on one Linux machine, each healed whatever becomes of the test.

`docs/chaos.md` says what each fault needs. A fault heals when it is told to, when its lab closes,
and by the watchdog when its time is over or the test's process has died.
"""
