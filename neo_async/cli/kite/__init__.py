"""`neo-async kite`: mutual funds at Kite Connect from the shell."""

from __future__ import annotations

import typer

from neo_async.cli.kite import access, changes, reports

kite = typer.Typer(
    no_args_is_help=True,
    help="Mutual funds at Kite Connect (Zerodha's Coin): orders, SIPs, holdings, funds.",
    epilog=(
        "Reads KITE_API_KEY, and KITE_ACCESS_TOKEN unless `neo-async kite login` has stored one, "
        "for which it needs KITE_API_SECRET; KITE_URL and KITE_CA_FILE select another server, "
        "such as `neo-async exchange`."
    ),
)
_sip = typer.Typer(no_args_is_help=True, help="Place, modify and cancel SIPs.")

kite.command()(access.login)
kite.command()(access.logout)
kite.command()(reports.orders)
kite.command()(reports.sips)
kite.command()(reports.holdings)
kite.command()(reports.instruments)
kite.command()(changes.buy)
kite.command()(changes.sell)
kite.command()(changes.cancel)
kite.add_typer(_sip, name="sip")
_sip.command("place")(changes.place_sip)
_sip.command("modify")(changes.modify_sip)
_sip.command("cancel")(changes.cancel_sip)
