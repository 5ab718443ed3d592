"""The client's name of every field of each call, and its name in the default contract, which is the
default of every profile."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from neo_async.banking.model import Refusal


class Call(StrEnum):
    """The calls of the bank."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    INQUIRY = "inquiry"
    FETCH = "fetch"
    ACK = "ack"
    REFUND = "refund"
    REFUND_STATUS = "refund_status"


_ENVELOPE = {
    "request_id": "requestId",
    "client_name": "clientName",
    "physical_account": "physicalAccount",
}
_ACCOUNT = {
    "number": "virtualAccountNumber",
    "name": "name",
    "valid_from": "validFrom",
    "valid_to": "validTo",
    "min_amount": "minAmount",
    "max_amount": "maxAmount",
    "mobile": "mobile",
    "email": "email",
    "description": "description",
}
_CREDIT = {
    "sequence": "sequence",
    "reference": "transactionReference",
    "account": "virtualAccountNumber",
    "physical_account": "physicalAccount",
    "amount": "amount",
    "currency": "currency",
    "mode": "mode",
    "utr": "utr",
    "remitter_name": "remitterName",
    "remitter_account": "remitterAccount",
    "remitter_ifsc": "remitterIfsc",
    "narration": "narration",
    "credited_at": "creditedAt",
}
_REFUND = {
    "status": "status",
    "refund_reference": "refundReference",
    "reference": "transactionReference",
    "amount": "amount",
    "refund_status": "refundStatus",
    "utr": "utr",
    "message": "message",
    "updated_at": "updatedAt",
}


def _list_of(name: str, path: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {name: path, **{f"{name}.{meaning}": field for meaning, field in fields.items()}}


def _results(**fields: str) -> dict[str, str]:
    outcome = {
        "number": "virtualAccountNumber",
        "status": "status",
        "code": "code",
        "message": "message",
    }
    return {"status": "status", **_list_of("results", "results[]", outcome | fields)}


REQUEST: Final[Mapping[str, Mapping[str, str]]] = {
    Call.CREATE: _ENVELOPE | _list_of("accounts", "accounts[]", _ACCOUNT),
    Call.MODIFY: _ENVELOPE | _list_of("accounts", "accounts[]", _ACCOUNT | {"status": "status"}),
    Call.DELETE: _ENVELOPE | _list_of("accounts", "accounts[]", {"number": _ACCOUNT["number"]}),
    Call.INQUIRY: {
        **_ENVELOPE,
        "client_name": "",
        **_list_of("accounts", "accounts[]", {"number": _ACCOUNT["number"]}),
    },
    Call.FETCH: {
        **_ENVELOPE,
        "cursor": "cursor",
        "ack_batch_id": "",
        "ack_count": "",
        "ack_status": "",
    },
    Call.ACK: {
        **_ENVELOPE,
        "client_name": "",
        "batch_id": "batchId",
        "count": "count",
        "status": "status",
    },
    Call.REFUND: {
        "request_id": "requestId",
        "client_name": "clientName",
        "physical_account": "",
        "reference": "transactionReference",
        "amount": "amount",
        "reason": "reason",
        "account": "",
        "ifsc": "",
    },
    Call.REFUND_STATUS: {
        "request_id": "requestId",
        "client_name": "",
        "physical_account": "",
        "refund_reference": "refundReference",
        "original_request_id": "originalRequestId",
    },
}
"""The bank's name of each field of each request, by the client's name."""

RESPONSE: Final[Mapping[str, Mapping[str, str]]] = {
    Call.CREATE: _results(),
    Call.MODIFY: _results(),
    Call.DELETE: _results(),
    Call.INQUIRY: _results(**_ACCOUNT, account_status="accountStatus"),
    Call.FETCH: {
        "status": "status",
        "batch_id": "batchId",
        "delivery_count": "deliveryCount",
        "count": "count",
        **_list_of("transactions", "transactions[]", _CREDIT),
    },
    Call.ACK: {"status": "status"},
    Call.REFUND: _REFUND,
    Call.REFUND_STATUS: _REFUND,
}
"""The bank's name of each field of each answer, by the client's name. `error.success_values`
applies to `status`; without it, the HTTP status alone decides."""

INDISPENSABLE: Final[Mapping[str, tuple[str, ...]]] = {
    f"request.{Call.CREATE}": ("accounts", "accounts.number"),
    f"request.{Call.MODIFY}": ("accounts", "accounts.number"),
    f"request.{Call.DELETE}": ("accounts", "accounts.number"),
    f"request.{Call.INQUIRY}": ("accounts", "accounts.number"),
    f"request.{Call.REFUND}": ("reference",),
    f"response.{Call.CREATE}": ("results", "results.number", "results.status"),
    f"response.{Call.MODIFY}": ("results", "results.number", "results.status"),
    f"response.{Call.DELETE}": ("results", "results.number", "results.status"),
    f"response.{Call.INQUIRY}": ("results", "results.number", "results.account_status"),
    f"response.{Call.FETCH}": ("transactions", "transactions.reference", "transactions.amount"),
    f"response.{Call.REFUND}": ("refund_reference", "refund_status"),
    f"response.{Call.REFUND_STATUS}": ("refund_reference", "refund_status"),
}
"""Fields that every profile must have."""

LISTS: Final = ("accounts", "results", "transactions")

CODES: Final[Mapping[str, Refusal]] = {
    "VA0400": Refusal.INPUT,
    "VA0401": Refusal.AUTH,
    "VA0403": Refusal.FORBIDDEN,
    "VA0404": Refusal.INPUT,
    "VA0409": Refusal.KEY_REUSED,
    "VA0429": Refusal.THROTTLE,
    "VA0500": Refusal.TEMPORARY,
    "VA0503": Refusal.TEMPORARY,
    "VA1001": Refusal.INPUT,
    "VA1002": Refusal.DUPLICATE,
    "VA1003": Refusal.UNKNOWN_ACCOUNT,
    "VA1004": Refusal.DELETED,
    "VA1005": Refusal.INPUT,
    "VA1006": Refusal.INPUT,
    "VA2002": Refusal.UNKNOWN_BATCH,
    "VA2003": Refusal.INPUT,
    "VA2004": Refusal.INPUT,
    "VA3001": Refusal.UNKNOWN_TRANSACTION,
    "VA3002": Refusal.OVER_REFUND,
    "VA3003": Refusal.OVER_REFUND,
}
"""Reasons of refusals by the bank's code. Those of a profile are added."""
