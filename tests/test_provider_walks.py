"""Signing in by the company's identity provider in a real browser: the button, the provider's own page, the console."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pyotp
import pytest
from playwright.sync_api import expect

from browser import Browser
from issuer import Issuer
from keywright import Keywright
from keywright.model import Actor
from keywright.testing import Clock
from people import begin
from surfaces import served, server
from test_console_walks import ADMIN, Site, _complaints, _expected, chromium

__all__ = ["chromium"]  # the browser, for all tests of this file


@pytest.fixture
def issuer(clock: Clock) -> Iterator[Issuer]:
    """The provider."""
    with Issuer(clock) as opened:
        yield opened


@pytest.fixture
def site(kw: Keywright, chromium: Browser, issuer: Issuer) -> Iterator[Site]:
    """The console beside a provider, with somebody whom globex has invited; nobody else is asked, and nothing complains."""
    kw.installation.people.invite(ADMIN, account="globex", role="admin")
    chromium.complaints.clear()
    chromium.asked.clear()
    with (
        served(server(kw, **issuer.settings())) as port,
        chromium.page(reduced_motion="reduce") as page,
    ):
        page.set_default_timeout(10_000)
        yield Site(kw, chromium, port, page)
        shown = _complaints(page)
    ours = {f"127.0.0.1:{port}", urlsplit(issuer.url).netloc}
    said = [
        one for one in [*chromium.complaints, *shown] if not _expected(one) and "status of 503" not in one
    ]
    assert said == []
    assert {urlsplit(url).netloc for url in chromium.asked if url.startswith("http")} <= ours


@pytest.mark.security("A-06", "A-10")
def test_from_the_button_to_the_console(site: Site, issuer: Issuer) -> None:
    """Sent to sign in, one goes by the button to the provider and back to the page that one wanted; and proves it again so."""
    page = site.page
    site.go("/console/@globex/people")
    site.at("/console/sign-in")
    site.looked_at("sign-in-provider")
    page.get_by_role("link", name="Sign in with Acme").click()
    expect(page).to_have_url(re.compile(re.escape(issuer.url) + r"/authorize\?"))
    page.get_by_role("link", name="Continue as Ana").click()
    site.at("/console/@globex/people")
    expect(page.get_by_text(f"by {issuer.url}")).to_be_visible()
    site.looked_at("people-provider")

    site.go("/console/me")
    expect(page.get_by_text("You have no password here.")).to_be_visible()
    site.looked_at("profile-provider")
    page.get_by_role("link", name="Set one up").click()
    page.get_by_role("button", name="Set one up").click()
    site.at("/console/prove")
    site.looked_at("prove-provider")
    page.get_by_role("link", name="Give it to Acme").click()
    page.get_by_role("link", name="Continue as Ana").click()
    site.at("/console/me/factor")
    page.get_by_role("button", name="Set one up").click()
    expect(page.get_by_text("Type the code that it shows now.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    site.at("/console/sign-in")
    expect(page.get_by_text("You are signed out.")).to_be_visible()


@pytest.mark.security("A-10")
def test_what_a_person_reads_who_is_not_let_in(site: Site, issuer: Issuer, kw: Keywright) -> None:
    """Who has no place here, and who comes while the provider is down, read so in plain words; a password still opens."""
    page = site.page
    begin(kw, "owner", email="bea@globex.example")
    issuer.person = {"sub": "2", "email": "bob@globex.example", "email_verified": True, "name": "Bob"}
    site.go("/console/sign-in")
    page.get_by_role("link", name="Sign in with Acme").click()
    page.get_by_role("link", name="Continue as Bob").click()
    expect(page.get_by_role("alert")).to_contain_text("have no place here")
    site.looked_at("sign-in-refused")

    issuer.answers["token"] = (500, {}, b"")
    page.get_by_role("link", name="Sign in with Acme").click()
    page.get_by_role("link", name="Continue as Bob").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer right now")
    site.looked_at("sign-in-provider-down")
    site.sign_in("bea@globex.example")
    site.at("/console/@globex")


def test_an_invitation_and_a_code(site: Site, issuer: Issuer, kw: Keywright, clock: Clock) -> None:
    """Who comes by the provider takes a further invitation by it, and gives a code where they have set one up here."""
    page = site.page
    site.go("/console/sign-in")
    page.get_by_role("link", name="Sign in with Acme").click()
    page.get_by_role("link", name="Continue as Ana").click()
    site.at("/console/@globex")
    link = kw.installation.people.invite(ADMIN, account="initech", role="auditor")
    site.go(f"/console/link#{link.token}")
    expect(page.get_by_role("link", name="Accept with Acme")).to_be_visible()
    site.looked_at("link-provider")
    page.get_by_role("link", name="Accept with Acme").click()
    page.get_by_role("link", name="Continue as Ana").click()
    person = kw.installation.people.get(ADMIN)
    assert [one.account for one in person.memberships if one.accepted_at] == ["globex", "initech"]

    session = kw.installation.sessions.list(person)[0]
    offered = kw.installation.factors.begin(session, actor=Actor("person", person.id))
    authenticator, at = pyotp.TOTP(offered.secret), clock() // 1_000_000
    kw.installation.factors.confirm(session, authenticator.at(at), actor=Actor("person", person.id))
    site.go("/console/@initech/audit")  # under another cookie since
    page.get_by_role("link", name="Sign in with Acme").click()
    page.get_by_role("link", name="Continue as Ana").click()
    expect(page.get_by_role("heading", name="Your second factor")).to_be_visible()
    site.looked_at("sign-in-provider-code")
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    page.get_by_label("Code").fill(authenticator.at(at + 30))
    page.get_by_role("button", name="Go on").click()
    site.at("/console/@initech/audit")
