"""What samples of answers are made of: words by the field they stand in."""

from typing import Any, Final

_PICTURE: Final = "https://heika.example.com/v1/uploads/files/4f1c2a7e.jpg"
_TOKEN: Final = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJoZWlrYSJ9.c2lnbmF0dXJl"  # noqa: S105 - nobody's

NOTHING: Final = frozenset(
    (
        "cancel_at", "canceled_at", "closed_at", "completed_version", "decision", "end_reason", "ended_at", "error",
        "failing_since", "failure", "gift_code", "gift_redeemed_by", "held_at", "held_reason", "next_attempt_at",
        "next_cursor", "proof", "red_letter_number", "renewal_order_id", "request_headers", "resolved_at",
        "resolved_by", "response_body", "reverses_id", "tie_break", "voided_at", "withdrawn_at",
    )
)  # fmt: skip
"""Fields that are null most of the time."""

OF_SHAPES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("Membership", {"status": "active"}),
    ("Image", {"url": _PICTURE}),
    ("CodeBatch", {"count": 100, "redeemed": 12, "voided": 0, "note": "春季线下沙龙的到场礼"}),
    ("Plan", {"name": "黑卡季卡", "code": "black-card-3m", "amount": 4900, "original_amount": 5970}),
    ("Campaign", {"title": "春日八折", "code": "SPRING20", "kind": "percent", "value": 20, "total": 500}),
    ("Coupon", {"title": "春日八折", "kind": "percent", "value": 20, "discount": 980, "token": _TOKEN}),
    ("Partner", {"name": "林小满烘焙教室", "title": "课堂海报", "code": "LINXIAOMAN", "email": "lin@example.com"}),
    ("Link", {"title": "课堂海报", "code": "LINXIAOMAN", "url": "https://heika.example.com/i/LINXIAOMAN"}),
    ("Channel", {"name": "抖音", "code": "douyin"}),
    ("Category", {"code": "bread", "zh": "面包", "en": "Bread"}),
    ("Tier", {"zh": "烘焙爱好者", "en": "Enthusiast"}),
    ("Role", {"zh": "组织者", "en": "Organizer"}),
    ("Instructor", {"name": "林小满", "title": "欧包与酵种，十二年", "bio": "在社区里带过三百炉欧包。"}),
    (
        "Live",
        {"title": "直播：一个面团四种面包", "status": "scheduled", "instructor": "林小满", "code": "access_required"},
    ),
    ("Lesson", {"title": "起种：面粉和水的七天", "description": "每天喂一次，看气泡，闻酸味。"}),
    ("Course", {"title": "周末烤一炉欧包", "description": "从养酵种到出炉，四节课烤出脆壳的乡村面包。"}),
    ("Series", {"title": "从酵种到欧包", "description": "三门课，一个月。"}),
    (
        "Contest",
        {"title": "中秋月饼大赛", "rules": "晒出你亲手做的月饼，讲讲馅料的来历。", "entries": 128, "phase": "open"},
    ),
    ("Contest", {"moderation": "post", "settled_at": None, "accounts_before": "2026-06-01T02:30:00Z"}),
    ("Entry", {"status": "approved", "reason": None}),
    ("Prize", {"title": "一等奖", "kind": "membership_days", "value": 30, "from": 1, "to": 1}),
    ("Feature", {"title": "第一炉欧包", "body": "访谈：从养酵种说起。"}),
    ("Invoice", {"title": "福州烘焙有限公司", "tax_id": "91350100M000100Y43", "number": "25312000000012345678"}),
    ("Certificate", {"title": "西式面点师（三级）", "issuer": "上海市职业技能鉴定中心", "reason": None}),
    ("Question", {"text": "黄油要软化到什么程度？"}),
    ("Answer", {"text": "手指按下去有一个浅坑就可以。"}),
    ("Comment", {"text": "切面真漂亮！"}),
    ("Notice", {"kind": "membership_ending", "title": "黑卡即将到期", "body": "你的黑卡还有三天到期。"}),
    ("Quote", {"subtotal": 4900, "discount": 0, "total": 4900}),
    ("Order", {"subtotal": 4900, "discount": 0, "total": 4900, "number": "HK20260301000042", "status": "paid"}),
    ("Order", {"course_id": None, "gift": None, "checkout": None}),
    ("Refund", {"amount": 4900, "status": "succeeded", "reason": "不想要了"}),
    ("Commission", {"amount": 980, "status": "due", "kind": "sale"}),
    ("Payout", {"amount": 98000}),
    ("Endpoint", {"url": "https://partner.example.com/heika", "events": ["order.paid"], "secret": "whsec_shown-once"}),
    ("Room", {"url": "wss://live.example.com", "token": _TOKEN}),
    ("TokenPair", {"scope": ""}),
    ("Token", {"expires_in": 900}),
)
"""Words for the fields of shapes whose name holds a part; the first that fits is taken."""

WORDS: Final[dict[str, Any]] = {
    "key": "members",
    # Persons
    "nickname": "爱吃可颂的小周", "bio": "周末烤面包", "city": "上海", "phone": "+8613900000001",
    "phone_masked": "139****0001", "avatar_url": _PICTURE, "email": "finance@example.com", "device": "iPhone",
    "note": "四月沙龙的志愿者", "labels": ["线下沙龙"], "roles": ["sharer"], "tier": "enthusiast", "openid": "demo-openid",
    "unionid": "demo-unionid", "js_code": "demo-js-code", "identity": "demo-identity", "issuer": "heika",
    # Coming in
    "access_token": _TOKEN, "refresh_token": "rt_7Qm2fV9xKc", "token": "h0mem4debread123", "scope": "plans:read plans:write",
    "expires_in": 300, "retry_after": 60, "client_id": "partner-linxiaoman", "client_secret": "shown-once",
    "secret": "JBSWY3DPEHPK3PXP", "code": "123456", "uri": "otpauth://totp/Heika:admin@heika.local?secret=JBSWY3DPEHPK3PXP",
    "keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "2026-03", "x": "11qYAYKxCrfVS_7TyWQHOg"}],
    "invite_code": "K7M3Q9TX",
    # Money
    "currency": "CNY", "fee_currency": "CNY", "amount": 4900, "subtotal": 4900, "discount": 0, "total": 4900,
    "refunded_amount": 0, "refundable": 4900, "gross": 49000, "refunds": 4900, "net": 44100, "payers": 10, "arpu": 4410,
    "deferred_revenue": 39800, "renewals_due": 3, "renewals_paid": 2, "fee": 29, "debit": 4900, "credit": 0,
    "balanced": True, "min_amount": 1000, "value": 20, "revenue": 49000, "balance": 120, "points": 120, "delta": 5,
    "plan_code": "black-card-3m", "plan_codes": [], "months": 3, "days": 7, "days_used": 2, "days_left": 90,
    "benefits": ["member_lessons", "live_replay"], "payment_method": "wechat_pay", "provider_ref": "cs_test_a1B2c3",
    "payment_intent": "pi_test_a1B2c3", "payment_ref": "cs_test_a1B2c3", "payment_status": "succeeded",
    "provider_status": "succeeded", "number": "HK20260301000042", "order_number": "HK20260301000042",
    "account": "cash", "differences": [], "expected": 4900, "found": 4900, "brand": "visa", "card_brand": "visa",
    "last4": "4242", "card_last4": "4242", "trial_amount": 300, "percent": 20, "hold_days": 14, "version": 1,
    "url": "https://heika.example.com/", "tax_id": "91350100M000100Y43",
    # Days and moments, in the order in which they come
    "month": "2026-03", "starts_at": "2026-03-01T02:30:00Z", "created_at": "2026-03-01T02:28:00Z",
    "expires_at": "2026-03-01T02:58:00Z", "paid_at": "2026-03-01T02:30:00Z", "ends_at": "2026-06-01T02:30:00Z",
    "renews_at": "2026-06-01T02:30:00Z", "until": "2026-06-01T02:30:00Z", "due_at": "2026-03-15T02:30:00Z",
    "server_time": "2026-03-01T02:31:00Z", "zone": "Asia/Shanghai", "duration_s": 420, "position_s": 60, "attended_s": 3600,
    "accounts_before": "2026-06-01T02:30:00Z",
    # What is true of few
    "auto_renew": False, "hide_totals": False, "frozen": False, "needs_red_letter": False, "removes_time": True,
    # Learning
    "category": "bread", "level": "intermediate", "title": "草莓蛋糕", "description": "从养酵种到出炉，四节课。",
    "name": "林小满", "instructor": "林小满", "course_title": "周末烤一炉欧包", "lesson_title": "起种：面粉和水的七天",
    "mean": 4.8, "negative_rate": 0.02, "score": 5, "comment": "讲得清楚", "text": "切面真漂亮！", "quote": "讲得清楚",
    "capacity": 200, "enrolled": 57, "priority_seats": 20, "position": 1, "streak": 3, "media": "bread-01.mp4",
    "media_type": "image/jpeg", "file_name": "recipe.pdf", "size": 48213, "next_charges": ["succeed"],
    "room": "live-01990d3f", "room_token": _TOKEN, "room_url": "wss://live.example.com",
    # Works
    "story": "第一次做，切面有点歪。", "votes": 42, "entry_votes": 42, "votes_left_today": 2, "votes_per_day": 3, "rank": 1,
    "voters": 40, "width": 1200, "height": 800, "thumbnail_url": _PICTURE, "thumbnails": {"320": _PICTURE},
    "tie_chain": ["votes", "voters_from_distinct_trees", "reached_at", "submitted_at", "id"], "same_picture": [],
    "digest_algorithm": "sha256", "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    # Reasons, kinds and states that are plain text
    "reason": "会员申请退款", "kind": "order", "status": "open", "type": "order.paid", "cause": "refund",
    "action": "plans.change", "target": "plan:black-card-1m", "audience": "everyone", "channel": "douyin",
    "events": ["order.paid"], "degraded": [], "missing": [], "webhook_id": "msg_01990d3f6c00", "item": "黑卡季卡",
    "reference": "2026-03", "evidence": {"address_prefix": "203.0.113.0/24", "registrations": 12},
    "before": {"amount": 1990}, "after": {"amount": 2190}, "body": "访谈：从养酵种说起。", "match": "phone",
    "response_status": 204, "duration_ms": 84, "code_words": "SPRING20",
}  # fmt: skip
"""Words for fields, whatever shape they stand in."""

_STREAM: Final = "id: 17\nevent: {event}\ndata: {data}\n\n"

FILES: Final = {
    "download_attendance": "member_id,nickname,attended_s,present\n01990d3f-6c00-7000-8000-000000000001,爱吃可颂的小周,3600,true\n",
    "download_payout_items": "partner_id,commission_id,amount\n"
    "01990d3f-6c00-7000-8000-000000000002,01990d3f-6c00-7000-8000-000000000003,980\n",
    "download_entries": "at,entry_id,kind,order_id,account,debit,credit,currency\n2026-03-01T02:30:00Z,"
    "01990d3f-6c00-7000-8000-000000000004,payment,01990d3f-6c00-7000-8000-000000000005,cash,4900,0,CNY\n",
    "download_members": "id,nickname,phone,tier,roles,labels,frozen,membership,ends_at,points,created_at\n"
    "01990d3f-6c00-7000-8000-000000000001,爱吃可颂的小周,+8613900000001,enthusiast,sharer,线下沙龙,false,active,"
    "2026-06-01T02:30:00Z,120,2026-03-01T02:28:00Z\n",
    "download_codes": "code\n7K3M-Q9TX-04HB-WZ5R\n",
    "follow_order": _STREAM.format(event="status", data='{"status":"paid"}'),
    "follow_live_lesson": _STREAM.format(event="status", data='{"status":"live"}'),
    "follow_leaderboard": _STREAM.format(event="leaderboard", data='{"items":[]}'),
    "text/calendar": "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Heika//live lessons//ZH\r\nEND:VCALENDAR\r\n",
    "text/html": '<!doctype html><html lang="zh-CN"><title>Heika 黑卡</title></html>',
}
"""Answers that are text but not JSON, by operation or by kind."""
