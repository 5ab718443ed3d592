"""`neo-async kite`: mutual funds at Kite Connect from the shell."""

from __future__ import annotations

from neo_async.cli.commands import Command, new_group
from neo_async.cli.kite import access, changes, reports

kite = new_group(
    help="Mutual funds at Kite Connect (Zerodha's Coin): orders, SIPs, holdings, funds.",
    epilog=(
        "Reads KITE_API_KEY, and KITE_ACCESS_TOKEN unless neo-async kite login has stored one, "
        "for which it needs KITE_API_SECRET; KITE_URL and KITE_CA_FILE select another server, "
        "such as neo-async exchange."
    ),
)
_sip = new_group(help="Place, modify and cancel SIPs.")

for _function in (
    access.login,
    access.logout,
    reports.orders,
    reports.sips,
    reports.holdings,
    reports.instruments,
    changes.buy,
    changes.sell,
    changes.cancel,
):
    kite.command(cls=Command)(_function)
kite.add_typer(_sip, name="sip")
_sip.command("place", cls=Command)(changes.place_sip)
_sip.command("modify", cls=Command)(changes.modify_sip)
_sip.command("cancel", cls=Command)(changes.cancel_sip)
