"""PagerDuty's own client of the Events API: an alert's three states, and a change."""

import sys

from pagerduty import EventsApiV2Client

host, key = sys.argv[1:]
pagerduty = EventsApiV2Client(key)
pagerduty._url = host  # base_url=… takes https:// only, which the embedded cloud does not speak
alert = pagerduty.trigger("Disk / is 97 % full", "web-1", severity="critical", custom_details={"free": "3 %"})
assert pagerduty.acknowledge(alert) == alert
assert pagerduty.resolve(alert) == alert
assert pagerduty.trigger("Queue grows", "mq-1", dedup_key="mq-1/queue", severity="warning") == "mq-1/queue"
pagerduty.submit("Deployed shop 1.2.0", "ci", custom_details={"commit": "4f2a"}, timestamp="2026-11-21T14:00:00+01:00")
