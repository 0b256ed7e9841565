"""Receipts as PDF: one A5 page, set in the Song face that every reader of Chinese PDFs brings along."""

import io
from collections.abc import Sequence
from functools import cache
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A5
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

FACE = "STSong-Light"
"""A predefined face of Adobe-GB1 (ISO 32000-1, 9.7.5.2): named in the file, not embedded."""
MARGIN = 14 * mm
NAME_WIDTH = 42 * mm


@cache
def _styles() -> tuple[ParagraphStyle, ParagraphStyle, ParagraphStyle]:
    pdfmetrics.registerFont(UnicodeCIDFont(FACE))
    name = ParagraphStyle(
        "name", fontName=FACE, fontSize=9, leading=14, wordWrap="CJK", textColor=colors.HexColor(0x666666)
    )
    value = ParagraphStyle("value", name, textColor=colors.black, alignment=TA_RIGHT)
    title = ParagraphStyle("title", value, fontSize=18, leading=26, alignment=0)
    return name, value, title


def draw(number: str, lines: Sequence[tuple[str, str, bool]]) -> bytes:
    """The receipt of an order as PDF; each line has a name, a value, and whether it stands out."""
    name, value, title = _styles()
    large = ParagraphStyle("large", value, fontSize=12, leading=18)
    rows = [
        [Paragraph(escape(label), name), Paragraph(escape(text), large if stands_out else value)]
        for label, text, stands_out in lines
    ]
    width = A5[0] - 2 * MARGIN
    table = Table(rows, colWidths=[NAME_WIDTH, width - NAME_WIDTH])
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.HexColor(0xDDDDDD)),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            ]
        )
    )
    out = io.BytesIO()
    page = SimpleDocTemplate(
        out,
        pagesize=A5,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=f"收据 Receipt {number}",
        lang="zh-CN",
    )
    page.build([Paragraph("收据 Receipt", title), Spacer(1, 4 * mm), table])
    return out.getvalue()
