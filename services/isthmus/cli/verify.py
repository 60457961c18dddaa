"""`verify`: check an evidence bundle against roots obtained by another way. It works with the base install alone."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from isthmus.cli import bundles
from isthmus.cli.options import Json
from isthmus.cli.screen import Exit, Screen, short, table
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.evidence import Report, Severity
from isthmus.contracts.roster import Roots
from isthmus.proof import canonical

MOST_FINDINGS = 40


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or zip file that `ledger export` wrote.")],
    *,
    roots: Annotated[
        Path | None,
        typer.Option("--roots", metavar="FILE", help="The roots to trust, obtained by another way than the bundle."),
    ] = None,
    json: Json = False,
) -> None:
    """Check that what was logged was permitted and is unaltered. Needs no network and no site.

    Exit code 0 means accepted, 4 not accepted. Without --roots nothing is accepted.
    """
    from isthmus.proof import bundle as verifier

    screen = Screen(machine=json)
    try:
        trusted = read_roots(roots)
        with screen.waiting("Verifying ..."):
            report = verifier.verify(bundles.read(bundle), trusted)
    except Refusal as refusal:
        screen.error(refusal)
        raise typer.Exit(Exit.NOT_ACCEPTED) from None
    show(screen, report)
    raise typer.Exit(Exit.OK if report.accepted else Exit.NOT_ACCEPTED)


def read_roots(path: Path | None) -> Roots:
    """Read what a verifier trusts.

    Raises:
        Refusal: there is none, or the file is no roots.
        Fault: `CONFIGURATION`: the file cannot be read.
    """
    if path is None:
        raise Refusal(
            Code.EVIDENCE_INVALID,
            "Nothing is accepted without roots.",
            why="A bundle's own keys prove nothing.",
            remedy="Obtain roots.json from each site by another way, and give it with --roots.",
        )
    try:
        return canonical.load(Roots, path.read_bytes())
    except Refusal as refusal:
        raise Refusal(
            refusal.code,
            f"{path} is not a file of roots.",
            why=refusal.what,
            remedy="Give the roots.json that `isthmus setup` wrote, obtained by another way than the bundle.",
        ) from None
    except OSError as error:
        raise Fault(Code.CONFIGURATION, f"The roots {path} cannot be read.", why=error.strerror or "") from error


def show(screen: Screen, report: Report) -> None:
    """Show a report: the verdict, each site, what crossed, every finding, what is not claimed."""
    verdict = Text("ACCEPTED", style="bold green") if report.accepted else Text("NOT ACCEPTED", style="bold red")
    logs = [
        (s.site, v.log, v.size, short(v.root), v.uncosigned, "yes" if s.verified else "NO")
        for s in report.sites
        for v in s.logs
    ]
    kinds = [(k.kind, k.count, k.refused, k.sealed_bytes, k.information_bits) for k in report.crossings]
    shown = sorted(report.findings, key=lambda f: f.severity is not Severity.FAILED)[:MOST_FINDINGS]
    findings = [
        (
            f.severity,
            f.code,
            f.site or "",
            " ".join(str(part) for part in (f.log, f.index) if part is not None),
            short(f.crossing or ""),
            f.detail,
        )
        for f in shown
    ]
    more = len(report.findings) + report.findings_left_out - len(shown)
    screen.result(
        report,
        verdict,
        table("Ledgers", ("site", "log", "entries", "root", "not yet cosigned", "verified"), logs),
        table("Crossed", ("kind", "count", "refused", "sealed bytes", "information bits, at most"), kinds),
        f"All releases together can say at most {report.information_bound_bits} bits.",
        *([table("Findings", ("weight", "code", "site", "entry", "crossing", "detail"), findings)] if findings else []),
        *([f"... and {more} more (see --json)."] if more else []),
        "Not claimed:",
        *(f"  {line}" for line in report.not_claimed),
    )
