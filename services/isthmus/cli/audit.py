"""`audit`: what an independent capture shows, held against what the borders logged. It works with the base install."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs

import datetime as dt
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from isthmus.cli import bundles
from isthmus.cli.options import Json
from isthmus.cli.screen import Exit, Screen, table
from isthmus.cli.verify import read_roots
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.roster import Roots
from isthmus.contracts.wire_audit import ROOM, Part, WireReport
from isthmus.proof.wire import Party

app = typer.Typer(help="What an independent capture shows.")

AT_MOST = 16 * 1024
RECONNECTS = 4
MOST_FINDINGS = 40
MEANING = {
    Part.PAYLOAD: "sealed payloads, as logged",
    Part.SIGNED: "envelopes and receipts, as logged",
    Part.CONTROL: "heads and openings, and padding beside them",
    Part.PADDING: "padding of payloads",
    Part.HTTP: "heads of requests and answers",
    Part.TLS: "TLS: headers and tags of records",
    Part.HANDSHAKE: "TLS: handshakes and closings",
    Part.TRANSPORT: "TCP, IP and link layer",
    Part.REPEATED: "sent again, or cut",
    Part.DARK: "dark: nothing accounts for them",
}


@app.callback()
def _group() -> None:
    """Keep `wire` a verb of its own, though it is the only one."""


@app.command("wire")
def wire(
    capture: Annotated[Path, typer.Argument(metavar="CAPTURE", help="A pcap file of all that passed.")],
    *,
    evidence: Annotated[
        Path, typer.Option("--evidence", metavar="BUNDLE", help="A folder or zip file that `ledger export` wrote.")
    ],
    roots: Annotated[
        Path | None,
        typer.Option("--roots", metavar="FILE", help="The roots to trust, obtained by another way than the bundle."),
    ] = None,
    party: Annotated[
        list[str],
        typer.Option("--party", metavar="SITE=ADDRESS[:PORT]", help="Whose address is whose; for every site."),
    ],
    at_most: Annotated[int, typer.Option("--at-most", min=0, metavar="BYTES", help="Dark bytes that pass.")] = AT_MOST,
    reconnects: Annotated[
        int, typer.Option("--reconnects", min=0, help="How often each zone's link may come up again.")
    ] = RECONNECTS,
    json: Json = False,
) -> None:
    """Account for every byte of a capture by ledgers and protocol; the rest is dark.

    Exit code 0 means that no more than --at-most bytes are dark and no finding stands, 4 anything else.
    """
    screen = Screen(machine=json)
    parties = [parsed(text) for text in party]
    try:
        trusted = read_roots(roots)
        with screen.waiting("Auditing ..."):
            report = audited(capture, evidence, trusted, parties, at_most=at_most, reconnects=reconnects)
    except Refusal as refusal:
        screen.error(refusal)
        raise typer.Exit(Exit.NOT_ACCEPTED) from None
    show(screen, report)
    raise typer.Exit(Exit.OK if report.clear else Exit.NOT_ACCEPTED)


def audited(
    capture: Path, evidence: Path, roots: Roots, parties: Sequence[Party], *, at_most: int, reconnects: int
) -> WireReport:
    """Read a capture and a bundle, and hold the one against the other.

    Args:
        capture: a pcap file.
        evidence: a bundle.
        roots: what to trust.
        parties: which address is whose.
        at_most: how many dark bytes pass.
        reconnects: how often each zone's link may come up again.

    Raises:
        Refusal: `MALFORMED`, `EVIDENCE_INVALID`: capture or bundle cannot be read whole.
        Fault: `STORAGE_FAILED`: one cannot be read at all.
    """
    from isthmus.cli import captures
    from isthmus.proof import wire as auditor
    from isthmus.proof.wire_streams import Capture

    seen = Capture()
    for packet in captures.read(capture):
        seen.take(packet)
    return auditor.reconcile(seen, bundles.read(evidence), roots, parties, at_most=at_most, most_reconnects=reconnects)


def spelled(party: Party) -> str:
    """Return a party as `parsed` takes it."""
    host = f"[{party.address}]" if ":" in party.address and party.port else party.address
    return f"{','.join(party.sites)}={host}" + (f":{party.port}" if party.port else "")


def parsed(text: str) -> Party:
    """Return the party in `SITE[,SITE]=ADDRESS[:PORT]`; an IPv6 address stands in brackets where a port follows.

    Raises:
        Refusal: `INPUT_INVALID`.
    """
    names, _, where = text.partition("=")
    host, colon, port = where.rpartition(":")
    if not colon or ("]" not in where and ":" in host):
        host, port = where, "0"
    try:
        address = str(ip_address(host.removeprefix("[").removesuffix("]")))
        return Party(address, int(port), tuple(SiteId(name) for name in names.split(",")))
    except ValueError as error:
        raise Refusal(
            Code.INPUT_INVALID, "A party is SITE=ADDRESS or SITE=ADDRESS:PORT.", remedy="As in hq=10.9.0.2:8443."
        ) from error


def show(screen: Screen, report: WireReport) -> None:
    """Show a report: the verdict, the parts, each flow, each link, every finding, what is not claimed."""
    verdict = Text("CLEAR", style="bold green") if report.clear else Text("NOT CLEAR", style="bold red")
    parts = [(MEANING[part], size, "yes" if part in ROOM else "") for part, size in report.parts.items()]
    flows = [
        (f"{f.sender or '?'} to {f.receiver or '?'}", f.total, f.parts[Part.PAYLOAD], f.parts[Part.DARK])
        for f in report.flows
    ]
    links = [(k.zone, k.connections, k.reconnects, *k.acts.values()) for k in report.links]
    acts = tuple(report.links[0].acts) if report.links else ()
    more = len(report.findings) + report.findings_left_out - MOST_FINDINGS
    screen.result(
        report,
        verdict,
        table("Bytes on the wire", ("part", "bytes", "room"), [*parts, ("in all", report.total, "")]),
        table("By direction", ("from and to", "bytes", "sealed payloads", "dark"), flows),
        table("Links", ("zone", "connections", "reconnects", *acts), links),
        f"Captured from {_time(report.began_us)} to {_time(report.ended_us)}.",
        f"It says nothing of crossings that were decided before ({report.before}) or after ({report.after}).",
        f"Dark: {report.dark} bytes; {report.at_most} pass. Room, whose content no capture shows: {report.room} bytes.",
        *([findings(report, MOST_FINDINGS)] if report.findings else []),
        *([f"... and {more} more (see --json)."] if more > 0 else []),
        "Not claimed:",
        *(f"  {line}" for line in report.not_claimed),
    )


def _time(at_us: int) -> str:
    return dt.datetime.fromtimestamp(at_us // 1_000_000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def findings(report: WireReport, most: int) -> Table:
    """Return a table of the first findings."""
    rows = [(f.code, f.site or "", f.dark, f.detail) for f in report.findings[:most]]
    return table("Findings", ("code", "site", "dark", "detail"), rows)
