"""A bank with other paths, names, words, dates and amounts than the default profile, that knows no
idempotency, takes an API key, and wants a batch acknowledged by the next request.

Written by hand in its own words, so that it shares nothing with what reads them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from neo_async.banking import BankingProfile

PROFILE = Path(__file__).with_name("other_bank.toml")
KEY = "l7xxkeykeykey"

Json = dict[str, Any]


class OtherBank:
    def __init__(self, waiting: int = 0, batch: int = 100) -> None:
        self.url = ""
        self.requests: list[tuple[str, str, Json]] = []
        """Method, path, and body or query."""
        self.problems: list[str] = []
        self.accounts: dict[str, Json] = {}
        self.credits = [
            {
                "Sr": str(number),
                "TxnRef": f"T{number}",
                "Va": {"No": "K000000001"},
                "Amt": number * 100 + 1,
                "Mode": "N" if number % 2 else "CASH",
                "Utr": None,
                "From": {"Name": "RAVI", "Acct": 123456789012, "Ifsc": "ICIC0000004"},
                "At": "19/11/2026 10:15:02",
            }
            for number in range(1, waiting + 1)
        ]
        self.batch = batch
        self.acknowledged = 0
        self.lost_answers = 0
        """How many of the next answers are lost on their way."""
        self.refunds: dict[str, Json] = {}

    @property
    def profile(self) -> BankingProfile:
        sections = tomllib.loads(PROFILE.read_text())
        sections["server"]["base_url"] = self.url
        return BankingProfile.of(sections)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        query = dict(request.query)
        if query.pop("key", "") != KEY or request.headers.get("X-Channel") != "H2H":
            self.problems.append(f"{request.path}: who is that?")
        if {"X-Request-Id", "Idempotency-Key", "Authorization"} & set(request.headers):
            self.problems.append(f"{request.path}: a header that nobody here knows")
        body = msgspec.json.decode(raw) if raw else query
        self.requests.append((request.method, request.path, body))
        call = request.path.removeprefix("/kvan/")
        answer = getattr(self, call)(body)
        if self.lost_answers:
            self.lost_answers -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response(answer)

    def vaCreate(self, body: Json) -> Json:
        return self._rows(body, self._create)

    def vaChange(self, body: Json) -> Json:
        return self._rows(body, self._change)

    def vaClose(self, body: Json) -> Json:
        return self._rows(body, lambda row: self._change({**row, "St": "X"}))

    def vaShow(self, body: Json) -> Json:
        return self._rows(body, lambda row: "" if row["VA"] in self.accounts else "D2")

    def _rows(self, body: Json, work: Any) -> Json:
        rows = []
        for row in body["Body"]["VAList"]:
            code = work(row)
            account = self.accounts.get(row["VA"])
            rows.append(
                {"VA": row["VA"], "Res": "N", "Cd": code, "Msg": f"says {code}"}
                if code
                else {"VA": row["VA"], "Res": "Y", "Cd": "0000", "Acc": account}
            )
        return {"Resp": {"St": "SOME", "Rows": rows}}

    def _create(self, row: Json) -> str:
        if row["VA"] in self.accounts:
            return "D1"
        self.accounts[row["VA"]] = {
            "St": "A",
            "Holder": row["Holder"]["Name"],
            "From": row.get("From"),
            "Min": row.get("Min"),
        }
        return ""

    def _change(self, row: Json) -> str:
        if row["VA"] not in self.accounts:
            return "D2"
        assert row.get("St", "A") in ("A", "B", "X"), row
        self.accounts[row["VA"]] |= {"St": row["St"]} if "St" in row else {}
        return ""

    def TxnDetails(self, body: Json) -> Json:
        got = body["Body"].get("Got")
        if got and int(got["Id"]) == self.acknowledged:
            assert got["St"] == "GOT"
            self.acknowledged += got["N"]
        batch = self.credits[self.acknowledged : self.acknowledged + self.batch]
        return {
            "Resp": {"St": "OK", "Id": self.acknowledged, "N": str(len(batch)), "TxnList": batch}
        }

    def RefundPay(self, body: Json) -> Json:
        if body["TxnRef"] not in {credit["TxnRef"] for credit in self.credits}:
            return {"St": "FAIL", "Resp": {"Err": {"Cd": "D3", "Msg": "no such credit"}}}
        self.refunds[body["MsgId"]] = {
            "St": "OK",
            "Rid": f"R{len(self.refunds) + 1}",
            "TxnRef": body["TxnRef"],
            "Amt": body["Amt"],
            "RSt": "P",
        }
        return self.refunds[body["MsgId"]]

    def RefundEnq(self, query: Json) -> Json:
        for key, refund in self.refunds.items():
            if query.get("rid") == refund["Rid"] or query.get("msg") == key:
                return {**refund, "RSt": "S", "At": "20/11/2026 09:00:00"}
        return {"St": "FAIL", "Resp": {"Err": {"Cd": "D3", "Msg": "no such refund"}}}
