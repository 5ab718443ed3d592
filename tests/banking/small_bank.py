"""A bank that does what a test tells it to: it loses answers, sends batches twice, forgets.

Written from the contract, not from the client, and for the default profile. `OtherBank` in
`other_bank.py` speaks another format.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec
from aiohttp import web

from neo_async.banking import BankingProfile, VirtualAccounts
from tests.fake_servers import accepted

CLIENT_ID = "l7xx0123456789abcdef"
CLIENT_SECRET = "s3cr3t-of-the-portal"
CLIENT = "ACME"
PHYSICAL = "1234567890"

Json = dict[str, Any]


class Cut(Exception):
    """The connection ends without an answer."""


class SmallBank:
    """Faults are words, one for each call that comes: `""` answers, `before` and `after` close the
    connection before or after the call takes effect, `500 before` and `500 after` fail instead,
    `429` asks to come back in a second, `401` has forgotten the token, `twice` (of a fetch) sends
    the batch before once more."""

    def __init__(self, faults: Iterable[str] = ()) -> None:
        self.url = ""
        self.faults: Iterator[str] = iter(faults)
        self.requests: list[tuple[str, dict[str, str], Json]] = []
        """Path, headers by lower-case name, body. Tokens are not among them."""
        self.tokens = 0
        self.token_answers: list[web.Response] = []
        """Instead of tokens, one by one."""
        self.accounts: dict[str, Json] = {}
        self.credits: list[Json] = []
        self.acknowledged = 0
        """Credits at the start of the list that are."""
        self.outstanding: tuple[str, int] | None = None
        """Id and length of the batch that waits for its acknowledgement."""
        self.deliveries = 0
        self.batches: dict[str, tuple[int, int]] = {}
        self.refunds: dict[str, Json] = {}
        """By request id."""
        self.answers: dict[str, tuple[int, Json]] = {}
        """First answers by idempotency key."""
        self.results_left_out: set[str] = set()
        self.instead: dict[str, tuple[int, Json]] = {}
        """Answers to calls by path, such as `transactions/ack`, which then have no effect."""
        self._good: set[str] = set()

    def add_credits(self, count: int) -> None:
        for _ in range(count):
            number = len(self.credits) + 1
            self.credits.append(
                {
                    "sequence": number,
                    "transactionReference": f"REF{number:08}",
                    "virtualAccountNumber": "ACME00000001",
                    "physicalAccount": PHYSICAL,
                    "amount": f"{number}.{number % 100:02}",
                    "currency": "INR",
                    "mode": "NEFT",
                    "utr": f"UTR{number}",
                    "remitterName": "RAVI K",
                    "remitterAccount": "000401234567",
                    "remitterIfsc": "ICIC0000004",
                    "narration": "INV 77",
                    "creditedAt": "2026-11-19T10:15:02+05:30",
                }
            )

    @property
    def references(self) -> list[str]:
        return [credit["transactionReference"] for credit in self.credits]

    def bodies(self, path: str) -> list[Json]:
        return [body for at, _, body in self.requests if at.endswith(path)]

    def paths(self) -> list[str]:
        return [path.removeprefix("/va/v1/") for path, _, _ in self.requests]

    # --- HTTP -----------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/auth/oauth/v2/token":
            return self._token(await request.post())
        body = msgspec.json.decode(await request.read())
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, body))
        if headers.get("authorization", "").removeprefix("Bearer ") not in self._good:
            return self._failure(401, "VA0401", "token unknown")
        try:
            return self._respond(request.path, headers, body)
        except Cut:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

    def _respond(self, path: str, headers: dict[str, str], body: Json) -> web.Response:
        fault = next(self.faults, "")
        if fault == "401":
            self._good.clear()
            return self._failure(401, "VA0401", "token expired")
        if fault == "429":
            return self._failure(429, "VA0429", "slow down", headers={"Retry-After": "1"})
        if fault == "html":
            return web.Response(text="<h1>maintenance</h1>", status=503, content_type="text/html")
        if fault.endswith("before"):
            self._give_up(fault)
        call = path.removeprefix("/va/v1/")
        status, answer = self.instead.get(call) or self._once(call, headers, body, fault)
        if fault.endswith("after"):
            self._give_up(fault)
        return _json(status, {"requestId": body["requestId"], **answer})

    def _give_up(self, fault: str) -> None:
        if fault.startswith("500"):
            raise web.HTTPInternalServerError
        raise Cut

    def _once(self, call: str, headers: dict[str, str], body: Json, fault: str) -> tuple[int, Json]:
        key = headers.get("idempotency-key", "")
        if key in self.answers:
            return self.answers[key]
        status, answer = getattr(self, f"_{call.replace('/', '_')}")(body, fault)
        if key:
            self.answers[key] = status, answer
        return status, answer

    def _token(self, form: Any) -> web.Response:
        if self.token_answers:
            return self.token_answers.pop(0)
        given = (form["grant_type"], form["client_id"], form["client_secret"])
        if given != ("client_credentials", CLIENT_ID, CLIENT_SECRET):
            return _json(401, {"error": "invalid_client", "error_description": "who are you"})
        self.tokens += 1
        token = f"token-{self.tokens}"
        self._good.add(token)
        return _json(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _failure(self, status: int, code: str, text: str, **options: Any) -> web.Response:
        return _json(status, {"status": "FAILURE", "errorCode": code, "message": text}, **options)

    # --- accounts -------------------------------------------------------------------------------

    def _accounts_create(self, body: Json, fault: str) -> tuple[int, Json]:
        return self._results(body, self._create)

    def _accounts_modify(self, body: Json, fault: str) -> tuple[int, Json]:
        return self._results(body, self._modify)

    def _accounts_delete(self, body: Json, fault: str) -> tuple[int, Json]:
        return self._results(body, lambda item: {"accountStatus": "DELETED"})

    def _accounts_inquiry(self, body: Json, fault: str) -> tuple[int, Json]:
        return self._results(body, lambda item: {})

    def _results(self, body: Json, change: Any) -> tuple[int, Json]:
        if any(item.get("name") == "poison" for item in body["accounts"]):
            return 400, {"status": "FAILURE", "errorCode": "VA1001", "message": "bad name"}
        results = []
        for item in body["accounts"]:
            number = item["virtualAccountNumber"]
            stored = self.accounts.get(number)
            if change == self._create:
                problem = "VA1002" if stored else ""
            else:
                problem = "" if stored else "VA1003"
            result = {"virtualAccountNumber": number, "status": "SUCCESS", "code": "00"}
            if problem:
                result |= {"status": "FAILURE", "code": problem, "message": f"is {problem}"}
            else:
                self.accounts[number] = {**(stored or {}), **change(item)}
                result = {**self.accounts[number], **result}
            if number not in self.results_left_out:
                results.append(result)
        failed = any(result["status"] == "FAILURE" for result in results)
        return 200, {"status": "PARTIAL" if failed else "SUCCESS", "results": results}

    def _create(self, item: Json) -> Json:
        return {**item, "accountStatus": "ACTIVE"}

    def _modify(self, item: Json) -> Json:
        item = dict(item)
        status = item.pop("status", None)
        return {**item, **({"accountStatus": status} if status else {})}

    # --- credits --------------------------------------------------------------------------------

    def _transactions_fetch(self, body: Json, fault: str) -> tuple[int, Json]:
        if fault == "twice" and self.batches:
            first, length = list(self.batches.values())[-1]
            return 200, self._batch("D" + list(self.batches)[-1], first, length)
        if self.outstanding is None:
            length = min(100, len(self.credits) - self.acknowledged)
            self.outstanding = (f"B{len(self.batches) + 1:010}", length)
            self.deliveries = 0
        batch_id, length = self.outstanding
        if not length:
            self.outstanding = None
            return 200, {"status": "SUCCESS", "batchId": None, "count": 0, "transactions": []}
        self.batches[batch_id] = (self.acknowledged, length)
        self.deliveries += 1
        return 200, self._batch(batch_id, self.acknowledged, length)

    def _batch(self, batch_id: str, first: int, length: int) -> Json:
        return {
            "status": "SUCCESS",
            "batchId": batch_id,
            "deliveryCount": self.deliveries,
            "count": length,
            "hasMore": first + length < len(self.credits),
            "transactions": self.credits[first : first + length],
        }

    def _transactions_ack(self, body: Json, fault: str) -> tuple[int, Json]:
        batch_id = body["batchId"].removeprefix("D")
        if batch_id not in self.batches:
            return 404, {"status": "FAILURE", "errorCode": "VA2002", "message": "unknown batch"}
        if body["count"] != self.batches[batch_id][1]:
            return 400, {"status": "FAILURE", "errorCode": "VA2003", "message": "wrong count"}
        if self.outstanding and self.outstanding[0] == batch_id:
            self.acknowledged += self.outstanding[1]
            self.outstanding = None
        return 200, {"status": "SUCCESS", "batchId": batch_id, "acknowledged": True}

    # --- refunds --------------------------------------------------------------------------------

    def _refunds_create(self, body: Json, fault: str) -> tuple[int, Json]:
        if body["transactionReference"] not in self.references:
            return 404, {"status": "FAILURE", "errorCode": "VA3001", "message": "no such credit"}
        refund = {
            "status": "SUCCESS",
            "refundReference": f"RF{len(self.refunds) + 1:08}",
            "transactionReference": body["transactionReference"],
            "amount": body.get("amount", "9.00"),
            "refundStatus": "INITIATED",
            "message": "refund initiated",
        }
        self.refunds[body["requestId"]] = refund
        return 200, refund

    def _refunds_status(self, body: Json, fault: str) -> tuple[int, Json]:
        found = self.refunds.get(body.get("originalRequestId", ""))
        for refund in self.refunds.values():
            if refund["refundReference"] == body.get("refundReference"):
                found = refund
        if found is None:
            return 404, {"status": "FAILURE", "errorCode": "VA3001", "message": "no such refund"}
        return 200, found


def _json(status: int, content: Json, **options: Any) -> web.Response:
    return web.json_response(content, status=status, **options)


@contextlib.asynccontextmanager
async def serving(bank: Any) -> AsyncIterator[str]:
    """Serve anything with a `handle` and a `url`, which is set."""
    runner = web.ServerRunner(web.Server(bank.handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        bank.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield bank.url
    finally:
        await accepted()
        await runner.cleanup()


def profile_of(bank: Any, **sections: Any) -> BankingProfile:
    server = {"base_url": bank.url, **sections.pop("server", {})}
    plan = {"requests_per_second": 1000, "requests_per_day": 0, **sections.pop("plan", {})}
    return BankingProfile.of({"server": server, "plan": plan, **sections})


def client_of(bank: Any, *, store: Any = None, **sections: Any) -> VirtualAccounts:
    """A client on the clock of the loop."""
    return VirtualAccounts(
        CLIENT_ID,
        CLIENT_SECRET,
        profile=profile_of(bank, **sections),
        client_name=CLIENT,
        physical_account=PHYSICAL,
        store=store,
        monotonic=asyncio.get_running_loop().time,
    )
