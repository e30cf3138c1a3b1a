"""Settings: the defaults are the contract, and a bad one is named with what to type."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from checkout_simulator.bounds import Address, Bounds
from checkout_simulator.settings import Settings, SettingsError

CHART_SCHEMA = Path(__file__).parents[2] / "k8s/helm-charts/flask-app/values.schema.json"


def test_defaults() -> None:
    settings = Settings.from_env({"PATH": "/bin"})
    assert (settings.normal_min_ms, settings.normal_max_ms, settings.normal_error_rate) == (50, 150, 0.05)
    assert (settings.peak_min_ms, settings.peak_max_ms, settings.peak_error_rate) == (1800, 2500, 0.7)
    assert (settings.peak_length_s, settings.peak_gap_min_s, settings.peak_gap_max_s) == (30, 60, 180)


def test_values_come_from_the_environment() -> None:
    settings = Settings.from_env({"CHECKOUT_SEED": "7", "CHECKOUT_PEAK_LENGTH_S": "12.5"})
    assert settings.seed == 7 and settings.peak_length_s == 12.5


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"CHECKOUT_NORMAL_ERROR_RATE": "5%"},
            "CHECKOUT_NORMAL_ERROR_RATE='5%' is not a number: type a number from 0 to 1, "
            "such as CHECKOUT_NORMAL_ERROR_RATE=0.05",
        ),
        ({"CHECKOUT_PEAK_ERROR_RATE": "1.2"}, "CHECKOUT_PEAK_ERROR_RATE='1.2' is not within 0 to 1: type a number"),
        ({"CHECKOUT_PEAK_MAX_MS": "nan"}, "CHECKOUT_PEAK_MAX_MS='nan' is not finite: type a number from 0 to 60000"),
        ({"CHECKOUT_SEED": "1.5"}, "CHECKOUT_SEED='1.5' is not a whole number: type a whole number"),
        ({"CHECKOUT_THREADS": ""}, "CHECKOUT_THREADS='' is not a whole number: type a whole number from 1 to 512"),
        (
            {"CHECKOUT_PEAK_LENGHT_S": "30"},
            "CHECKOUT_PEAK_LENGHT_S='30' is not a setting: use CHECKOUT_PEAK_LENGTH_S",
        ),
        ({"CHECKOUT_XYZ": "1"}, "CHECKOUT_XYZ='1' is not a setting: remove it"),
        (
            {"CHECKOUT_NORMAL_MIN_MS": "200"},
            "CHECKOUT_NORMAL_MIN_MS=200 is above CHECKOUT_NORMAL_MAX_MS=150: "
            "type at most 150 for the first or at least 200 for the second",
        ),
        (
            {"CHECKOUT_PAYMENT_URL": "payment:80"},
            "CHECKOUT_PAYMENT_URL='payment:80' is not the address of an HTTP service: "
            "type http://host or http://host:port, or nothing, such as CHECKOUT_PAYMENT_URL=http://payment:80",
        ),
        (
            {"CHECKOUT_PAYMENT_URL": "file:///etc/passwd"},
            "CHECKOUT_PAYMENT_URL='file:///etc/passwd' is not the",
        ),
        ({"CHECKOUT_PAYMENT_URL": "http://payment/charge"}, "CHECKOUT_PAYMENT_URL='http://payment/charge' is not the"),
        ({"CHECKOUT_PEAK_LENGTH_S": "61"}, "CHECKOUT_PEAK_LENGTH_S=61 is above CHECKOUT_PEAK_GAP_MIN_S=60"),
    ],
)
def test_a_bad_setting_is_explained(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        Settings.from_env(env)


@pytest.mark.parametrize(
    "url", ["", "http://payment", "https://pay.example.com", "http://10.0.0.7:8000", "http://[::1]:80"]
)
def test_an_address_is_kept_as_it_was_typed(url: str) -> None:
    assert Settings.from_env({"CHECKOUT_PAYMENT_URL": url}).payment_url == url


def test_all_bad_settings_are_named_at_once() -> None:
    bad = {"CHECKOUT_SEED": "x", "CHECKOUT_PEAK_MIN_MS": "-1", "CHECKOUT_NORMAL_ERROR_RATE": "2"}
    with pytest.raises(SettingsError) as error:
        Settings.from_env(bad)
    lines = str(error.value).splitlines()
    assert len(lines) == 4  # a heading, and a line for each
    assert all(any(name in line for line in lines) for name in bad)


def test_the_chart_offers_exactly_these_settings() -> None:
    if not CHART_SCHEMA.is_file():
        pytest.skip("the app is alone: its chart is not beside it")
    offered = json.loads(CHART_SCHEMA.read_text())["properties"]["settings"]["properties"]
    in_chart = {
        re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", name): (
            Bounds(schema["minimum"], schema["maximum"], whole=schema["type"] == "integer")
            if schema["type"] != "string"
            else Address(),
            schema["default"],
        )
        for name, schema in offered.items()
    }
    assert offered["paymentUrl"]["pattern"] == f"^({Address.pattern})?$"
    assert in_chart == {item.name: (item.metadata["bounds"], item.default) for item in fields(Settings)}
