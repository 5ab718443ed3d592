"""The opt-in second send: a placement whose answer was lost is sent again under its client tag.

The broker accepts a tag once, so the second send cannot become a second order: it is accepted when
the first one did not arrive, and refused as a duplicate when it did. Any other refusal proves
nothing about the first send, which may have met other circumstances.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from neo_async.base.logs import log_order
from neo_async.errors import (
    AnswerLost,
    DuplicateTag,
    NeoError,
    NotSent,
    ProtocolError,
    ServerError,
)
from neo_async.execution.in_flight import InFlightOrders
from neo_async.execution.in_flight_request import InFlightRequest
from neo_async.execution.order import Order
from neo_async.transport.backoff import backoff

RETRY_BASE_SECONDS = 0.5
RETRY_CAP_SECONDS = 5.0
"""Bounds of the pause before the next send, when the answer to one was lost as well."""


def resubmit(
    in_flight: InFlightOrders, request: InFlightRequest, send: Callable[[], Awaitable[Order]]
) -> None:
    """Have a placement in flight sent again by `send`, in a task, until the broker accepts it or
    refuses it as a duplicate, within its resolution timeout."""
    if request.is_done or request.is_proven:
        return
    in_flight.run_while_open(
        request, _resubmit(in_flight, request, send), f"resubmission {request.expected.identity}"
    )


async def _resubmit(
    in_flight: InFlightOrders, request: InFlightRequest, send: Callable[[], Awaitable[Order]]
) -> None:
    loop = asyncio.get_running_loop()
    # Every send moves the end of the timeout, and must not keep the request in flight for ever.
    until, tries = request.deadline, 0
    while not request.is_done and loop.time() < until:
        tries += 1
        log_order(
            in_flight.log,
            logging.INFO,
            in_flight.subject(request),
            "resubmitted under the same client tag",
        )
        request.is_being_resubmitted = True
        try:
            order = await send()
        except DuplicateTag:
            request.is_proven = True
            in_flight.request_order_book()
            return
        except (NotSent, AnswerLost, ServerError, ProtocolError):
            pass
        except NeoError as error:
            subject = in_flight.subject(request)
            log_order(
                in_flight.log, logging.WARNING, subject, "resubmitted, and refused: %s", error
            )
            return
        else:
            if not request.is_done:
                in_flight.accept(request, order)
            return
        finally:
            request.is_being_resubmitted = False
            request.restart_timeout(loop.time() + in_flight.resolution_timeout)
        await asyncio.sleep(backoff(tries, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS))
