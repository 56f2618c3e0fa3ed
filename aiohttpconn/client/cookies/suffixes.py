"""Public suffixes: domains below which anyone may have a name, such as co.uk and github.io.

A cookie for such a domain would go to all who have one. The full list (https://publicsuffix.org)
has 10,000 entries and changes every week; the extra ``publicsuffix`` installs a package with it.
Without it, a short list of the most used ones is what is known. Pure. Layer: client.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache

__all__ = ["covers_suffix", "public_suffix_check"]

# The second level of country domains that sell names below it: co.uk, com.au, or.jp, gob.mx.
_SECOND_LEVEL = re.compile(
    r"(?:ac|co|com|edu|gob|gouv|gov|govt|go|mil|ne|net|nom|or|org|sch)\.[a-z]{2}"
)

# More of the second level, by country.
_COUNTRIES = """
    asn.au id.au art.br blog.br eco.br ind.br asso.fr idv.hk my.id web.id k12.il muni.il firm.in
    gen.in ind.in ad.jp ed.jp gr.jp lg.jp pe.kr re.kr geek.nz gen.nz kiwi.nz maori.nz school.nz
    biz.pl info.pl waw.pl in.th mi.th bel.tr gen.tr k12.tr web.tr idv.tw ltd.uk me.uk nhs.uk plc.uk
    police.uk law.za web.za
"""

# Domains that are sold like a country's.
_SOLD = """
    br.com cn.com co.com de.com eu.com jpn.com ru.com sa.com uk.com us.com za.com gb.net jp.net
    se.net uk.net eu.org us.org
"""

# Hosts of web sites and applications, each under a name of its user's.
_PLATFORMS = """
    amplifyapp.com appspot.com azureedge.net azurestaticapps.net azurewebsites.net bitbucket.io
    blob.core.windows.net blogspot.com bubbleapps.io cloudapp.net cloudfront.net cloudfunctions.net
    codeberg.page deno.dev elasticbeanstalk.com firebaseapp.com fly.dev framer.app gitbook.io
    github.io githubusercontent.com gitlab.io herokuapp.com hf.space lovable.app myshopify.com
    netlify.app ngrok-free.app ngrok.app ngrok.io notion.site now.sh onrender.com pages.dev r2.dev
    readthedocs.io repl.co replit.app s3.amazonaws.com streamlit.app supabase.co
    surge.sh translate.goog trycloudflare.com up.railway.app vercel.app web.app
    web.core.windows.net webflow.io wixsite.com workers.dev
"""

# Names for machines whose address changes.
_DYNAMIC = "altervista.org ddns.net duckdns.org dyndns.org dynu.net no-ip.org"

_KNOWN = frozenset(f"{_COUNTRIES} {_SOLD} {_PLATFORMS} {_DYNAMIC}".split())


def is_known_suffix(domain: str) -> bool:
    """Whether *domain*, of two labels or more, is one of the public suffixes listed here."""
    return _SECOND_LEVEL.fullmatch(domain) is not None or domain in _KNOWN


@cache
def public_suffix_check() -> Callable[[str], bool]:
    """Return the function that tells public suffixes: with the full list, if it is installed."""
    try:
        full_list = importlib.import_module("publicsuffixlist")
    except ImportError:
        return is_known_suffix
    check: Callable[[str], bool] = full_list.PublicSuffixList().is_public
    return check


def covers_suffix(domain: str, host: str, is_public_suffix: Callable[[str], bool]) -> bool:
    """Whether *domain*, which *host* is or belongs to, is a public suffix, or has one below it.

    amazonaws.com is none, but covers s3.amazonaws.com, to which bucket.s3.amazonaws.com belongs.
    """
    at = len(host) - len(domain)
    while at >= 0:
        if is_public_suffix(host[at:]):
            return True
        # The next domain has one label more.
        at = host.rfind(".", 0, at - 1) + 1 if at > 0 else -1
    return False
