from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from neo_async.account.accounts import PRODUCTION_LOGIN
from neo_async.config import (
    BreakerConfig,
    ConnectionSettings,
    Credentials,
    Durability,
    Endpoints,
    FeedTimings,
    OrderSettings,
    PoolLimits,
    RateLimits,
    RiskLimits,
    Timeouts,
)
from neo_async.errors import UsageError
from neo_async.model.enums import Product, Segment

USUAL = {
    "consumer_key": "2c1f0f2e-key",
    "mobile_number": "+919876543210",
    "ucc": "ABC12",
    "mpin": "070809",
    "totp_secret": "JBSWY3DPEHPK3PXP",
}
ENVIRONMENT = {
    "NEO_CONSUMER_KEY": "2c1f0f2e-key",
    "NEO_MOBILE_NUMBER": "+919876543210",
    "NEO_UCC": "ABC12",
    "NEO_MPIN": "070809",
    "NEO_TOTP_SECRET": "JBSWY3DPEHPK3PXP",
}


def test_credentials_come_from_the_environment():
    assert Credentials.from_env(ENVIRONMENT) == Credentials(**USUAL)
    without = {name: value for name, value in ENVIRONMENT.items() if name != "NEO_TOTP_SECRET"}
    assert Credentials.from_env(without).totp_secret == ""


def test_every_missing_variable_is_named():
    with pytest.raises(UsageError, match="environment lacks NEO_CONSUMER_KEY, NEO_UCC"):
        Credentials.from_env({"NEO_MOBILE_NUMBER": "+919876543210", "NEO_MPIN": "1", "NEO_UCC": ""})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("consumer_key", "", "consumer_key is empty"),
        ("consumer_key", "2c1f0f2e-key\n", "consumer_key holds blanks"),
        ("consumer_key", "2c1f 0f2e", "consumer_key holds blanks"),
        ("consumer_key", "schlüssel", "consumer_key holds blanks"),
        ("mobile_number", "9876543210", r"mobile_number must be \+91 and ten digits"),
        ("mobile_number", "+91987654321", "mobile_number must be"),
        ("mobile_number", "+919876543210\n", "mobile_number must be"),
        ("ucc", "", "ucc is empty"),
        ("mpin", "70809", "mpin must be six digits"),
        ("mpin", "7080900", "mpin must be six digits"),
        ("mpin", "07080a", "mpin must be six digits"),
    ],
)
def test_credentials_that_cannot_be_right_are_refused_without_being_shown(field, value, message):
    with pytest.raises(UsageError, match=message) as caught:
        Credentials(**USUAL | {field: value})
    assert not value or value.strip() not in str(caught.value)


def test_credentials_never_print():
    credentials = Credentials(**USUAL)
    for text in (repr(credentials), str(credentials), f"{credentials}"):
        assert "ABC12" in text
        for name in ("consumer_key", "mobile_number", "mpin", "totp_secret"):
            assert USUAL[name] not in text


@pytest.mark.parametrize("field", ["login", "base", "feed", "realtime"])
def test_an_endpoint_needs_a_scheme(field):
    with pytest.raises(UsageError, match=f"{field}='mis.kotaksecurities.com': must start with"):
        Endpoints(**{field: "mis.kotaksecurities.com"})


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:80",
        "http://a b",
        "http://h:99999",
        "http://h:0",
        "http://h:x",
        "http://[::1",
    ],
)
def test_an_endpoint_is_an_address_that_can_be(url):
    with pytest.raises(UsageError, match="holds no host, or one or a port that cannot be"):
        Endpoints(login=url)


def test_the_login_address_defaults_to_production():
    assert Endpoints().login == Endpoints.from_env({}).login == PRODUCTION_LOGIN
    assert Endpoints.from_env({"NEO_LOGIN_URL": ""}).login == PRODUCTION_LOGIN
    with pytest.raises(UsageError, match=r"NEO_LOGIN_URL='?localhost:8080'?: must start with"):
        Endpoints.from_env({"NEO_LOGIN_URL": "localhost:8080"})
    assert Endpoints.from_env({"NEO_LOGIN_URL": "http://127.0.0.1:1"}).login == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"orders": 0}, "orders=0: must be at least 1 a second"),
        ({"total": 0}, "total=0: must be at least 1 a second"),
        ({"orders": 11}, "total=10 is below orders=11: orders count towards the total"),
    ],
)
def test_rate_limits_that_cannot_be_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        RateLimits(**fields)


def test_the_published_limits_are_the_default():
    assert RateLimits() == RateLimits(orders=10, total=10)
    RateLimits(orders=10, total=25)


@pytest.mark.parametrize("name", Timeouts.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_deadline_is_above_zero(name, value):
    with pytest.raises(UsageError, match=f"{name}={value!r}: "):
        Timeouts(**{name: value})


@pytest.mark.parametrize(("warm", "maximum"), [(0, 1), (3, 2), (-1, -1)])
def test_a_pool_holds_at_least_its_warm_connections(warm, maximum):
    with pytest.raises(UsageError, match=f"warm={warm}, maximum={maximum}: need"):
        PoolLimits(warm=warm, maximum=maximum)


def test_a_pool_reserves_connections_for_cancels():
    assert PoolLimits() == PoolLimits(warm=2, maximum=32, reserved=2, for_cancels=96)
    PoolLimits(warm=1, maximum=1)  # there is none to reserve
    with pytest.raises(UsageError, match="reserved=-1: must be 0 or more"):
        PoolLimits(reserved=-1)
    with pytest.raises(UsageError, match="for_cancels=-1: must be 0 or more"):
        PoolLimits(for_cancels=-1)


@pytest.mark.parametrize("value", [2.5, "3", True, float("inf"), float("nan"), None])
@pytest.mark.parametrize(("kind", "name"), [(RateLimits, "orders"), (PoolLimits, "reserved")])
def test_what_is_counted_is_a_whole_number(kind, name, value):
    with pytest.raises(UsageError, match=f"{name}={value!r}: "):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RiskLimits(max_price_deviation_pct=300),
            "_pct=300: must be a percentage",
        ),
        (lambda: RiskLimits(segments={"nse"}), "segments={'nse'}: must be a set of some of nse_cm"),  # type: ignore[arg-type]
        (lambda: Timeouts(order="10"), "order='10': must be a number of seconds above 0"),  # type: ignore[arg-type]
        (lambda: Timeouts(order=None), "order=None: must be a number of seconds"),  # type: ignore[arg-type]
        (lambda: Timeouts(read=True), "read=True: must be a number of seconds"),
        (lambda: Timeouts(login=math.inf), "login=inf: must be a number of seconds"),
        (lambda: FeedTimings(ping=math.nan), "ping=nan: must be a number of seconds"),
        (lambda: BreakerConfig(failures=2.5), "failures=2.5: must be a whole number"),  # type: ignore[arg-type]
        (lambda: BreakerConfig(first_wait="1"), "first_wait='1': must be a number"),  # type: ignore[arg-type]
        (lambda: Endpoints(login=None), "login=None: must be text"),  # type: ignore[arg-type]
        (lambda: Endpoints(insecure="no"), "insecure='no': must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_a_setting_of_a_wrong_type_or_size_is_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)


def test_limits_take_segments_and_products_as_text() -> None:
    limits = RiskLimits(segments={"NSE_CM"}, products={"mis"})  # type: ignore[arg-type]
    assert (limits.segments, limits.products) == ({Segment.NSE_CM}, {Product.MIS})
    assert limits == RiskLimits(segments={Segment.NSE_CM}, products={Product.MIS})


def test_credentials_of_another_type_are_refused_without_their_value() -> None:
    with pytest.raises(UsageError, match=r"^mpin must be text$"):
        Credentials(consumer_key="k", mobile_number="+919999999999", ucc="U", mpin=123456)  # type: ignore[arg-type]


def test_the_groups_have_the_defaults_of_their_members() -> None:
    assert ConnectionSettings() == ConnectionSettings(
        pool=PoolLimits(), breaker=BreakerConfig(), feed_timings=FeedTimings()
    )
    assert OrderSettings() == OrderSettings(
        live_updates=True,
        durability=Durability.PROCESS,
        resolution_timeout=30.0,
        resubmit_unacknowledged=False,
    )
    OrderSettings(resolution_timeout=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"live_updates": "no"}, "live_updates='no': must be True or False"),
        ({"resubmit_unacknowledged": 1}, "resubmit_unacknowledged=1: must be True or False"),
        ({"durability": "disk"}, "durability='disk': must be Durability.PROCESS or"),
        ({"resolution_timeout": 0}, "resolution_timeout=0: must be a number of seconds above 0"),
        ({"resolution_timeout": float("nan")}, "resolution_timeout=nan: must be a number"),
        ({"resolution_timeout": float("inf")}, "resolution_timeout=inf: must be a number"),
        ({"resolution_timeout": True}, "resolution_timeout=True: must be a number"),
        ({"resolution_timeout": "30"}, "resolution_timeout='30': must be a number"),
    ],
)
def test_order_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        OrderSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": 4}, "pool=4: must be PoolLimits"),
        ({"breaker": None}, "breaker=None: must be BreakerConfig"),
        ({"feed_timings": PoolLimits()}, "must be FeedTimings"),
    ],
)
def test_connection_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        ConnectionSettings(**settings)
