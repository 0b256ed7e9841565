"""What the documentation pages fill in under "Try it out": bodies and names that work as given in the sandbox's world."""

from typing import Any, Final

_BENEFITS: Final = ["member_lessons", "live_replay", "live_priority", "monthly_coupon", "double_points", "qa_priority"]
_PHONE: Final = "13900000001"
_SHOP: Final = "pop_up_store"

BODIES: Final[dict[str, dict[str, Any]]] = {
    # An admin's day
    "create_plan": {
        "code": "black-card-6m",
        "name": "黑卡半年卡",
        "months": 6,
        "amount": 9800,
        "currency": "CNY",
        "original_amount": 17940,
        "benefits": _BENEFITS,
        "active": True,
    },
    "change_plan": {"name": "黑卡月卡", "amount": 1990, "original_amount": 2990, "active": True},
    "resolve_invoice_request": {"decision": "issue", "number": "25312000000012345678"},
    "take_invoice_back": {"number": "25312000000087654321"},
    "cancel_subscription_as_admin": {"reason": "会员来电要求停止自动续费", "at_once": False},
    "refund_order_as_admin": {"reason": "会员申请退款", "keep_time": False},
    "create_code_batch": {
        "plan_code": "black-card-1m",
        "count": 100,
        "expires_at": "2035-01-01T00:00:00Z",
        "note": "春季线下沙龙的到场礼",
    },
    "reconcile_day": {"day": "2026-01-01"},
    # A difference's own `repair` is done without a word; a payment that waits for a person may be sent back.
    "repair_difference": {},
    "change_member": {"labels": ["线下沙龙"], "note": "四月沙龙的志愿者"},
    "decide_certificate": {"decision": "approve", "reason": ""},
    "impersonate_member": {"reason": "会员来电：看不到已购买的课程"},
    "grant_membership": {"days": 7, "plan_code": "black-card-1m", "reason": "直播中断的补偿"},
    "create_course": {
        "title": "周末烤一炉欧包",
        "description": "从养酵种到出炉，四节课烤出脆壳的乡村面包。",
        "category": "bread",
        "level": "intermediate",
        "access": "member",
        "published": True,
    },
    "change_course": {"description": "从养酵种到出炉，五节课烤出脆壳的乡村面包。", "published": True},
    "create_lesson": {
        "title": "起种：面粉和水的七天",
        "description": "每天喂一次，看气泡，闻酸味。",
        "duration_s": 420,
    },
    "change_lesson": {"description": "每天喂一次，看气泡，闻酸味，第七天浮水。"},
    "create_instructor": {
        "name": "林小满",
        "title": "欧包与酵种，十二年",
        "bio": "在社区里带过三百炉欧包，只用五种原料。",
        "verified": True,
    },
    "change_instructor": {"title": "欧包与酵种，十三年"},
    "create_series": {"title": "从酵种到欧包", "description": "三门课，一个月。", "published": True},
    "change_series": {"description": "三门课，一个月，从第一勺面粉开始。"},
    "create_live_lesson": {
        "title": "直播：一个面团四种面包",
        "description": "同一个基础面团，现场做出四种早餐面包。",
        "instructor": "林小满",
        "starts_at": "2030-05-04T11:30:00Z",
        "ends_at": "2030-05-04T13:00:00Z",
        "capacity": 200,
        "priority_seats": 20,
        "access": [{"kind": "membership"}, {"kind": "invites", "needed": 3}],
    },
    "change_live_lesson": {"capacity": 300},
    "move_live_lesson": {"to": "scheduled"},
    # Ids come from the list of members; a grant to nobody harms nobody.
    "grant_live_access": {"member_id": "01990d3f-6c00-7000-8000-00000000beef", "reason": "特邀嘉宾"},
    # Ids come from the list of requests; this one is nobody's.
    "answer_lesson_request": {"request_id": "01990d3f-6c00-7000-8000-00000000beef"},
    "set_share_switches": {"mini_program": False, "h5": True, "app": True},
    "set_invite_switches": {"mini_program": False, "h5": True, "app": True},
    "create_campaign": {
        "title": "春日八折",
        "code": "SPRING20",
        "kind": "percent",
        "value": 20,
        "min_amount": 1000,
        "plan_codes": [],
        "total": 500,
        "per_member": 1,
        "starts_at": "2026-01-01T00:00:00Z",
        "ends_at": "2035-01-01T00:00:00Z",
        "valid_days": 30,
        "audience": "everyone",
    },
    "edit_campaign": {"title": "春日八折（加量）", "total": 800},
    # Ids come from the list of members; one that nobody has is refused by name.
    "grant_coupons": {"member_ids": ["01990d3f-6c00-7000-8000-00000000beef"]},
    "create_channel": {"code": _SHOP, "name": "线下快闪店"},
    "rename_channel": {"name": "线下快闪店（上海）"},
    "create_referral_rule": {"newcomer_amount": 500, "inviter_amount": 500, "inviter_days": 7, "monthly_cap": 20},
    "resolve_fraud_case": {"decision": "release", "reason": "同一所烘焙学校的学员，地址相同是正常的"},
    "create_partner": {
        "name": "林小满烘焙教室",
        "email": "lin@example.com",
        "commission": {"trial_amount": 300, "percent": 20, "months": 12},
        "hold_days": 14,
    },
    "change_partner": {"commission": {"trial_amount": 300, "percent": 25, "months": 12}, "hold_days": 14},
    "create_payout_run": {"until": "2035-01-01T00:00:00Z"},
    "create_contest": {
        "title": "中秋月饼大赛",
        "rules": "晒出你亲手做的月饼，讲讲馅料的来历。每人每天三票，不能投给自己。",
        "starts_at": "2030-09-01T00:00:00+08:00",
        "ends_at": "2030-09-30T00:00:00+08:00",
        "votes_per_day": 3,
        "moderation": "post",
        "hide_totals": False,
        "prizes": [
            {"from": 1, "to": 1, "title": "一等奖", "reward": {"kind": "membership_days", "value": 30}},
            {"from": 2, "to": 10, "title": "优秀奖", "reward": {"kind": "points", "value": 100}},
        ],
    },
    "change_contest": {"ends_at": "2030-10-07T00:00:00+08:00"},
    "quarantine_votes": {"rule": "address", "params": {"per_prefix": 5}, "dry_run": True},
    "create_feature": {
        "entry_id": "01990d3f-6c00-7000-8000-00000000beef",
        "title": "第一炉欧包",
        "body": "访谈：从养酵种说起。",
        "published": True,
    },
    "change_feature": {"published": False},
    "moderate_entry": {"decision": "approve", "reason": ""},
    "resolve_report": {"decision": "uphold", "reason": "图片来自他人的微博"},
    # A member's way in
    "send_code": {"phone": _PHONE},
    "verify_code": {"phone": _PHONE, "code": "000000", "visitor_id": "device-1"},
    # A token comes with each login, and a code with each message; these are nobody's.
    "refresh_tokens": {"refresh_token": "rt-of-the-latest-pair"},
    "bind_phone": {"phone": "13900000002", "code": "000000"},
    "confirm_totp": {"code": "000000"},
    "remove_totp": {"code": "000000"},
    "log_in_by_wechat": {"js_code": "demo-js-code", "visitor_id": "device-1"},
    "apply_with_certificate": {
        "title": "西式面点师（三级）",
        "issuer": "上海市职业技能鉴定中心",
        "proof_url": "https://example.com/certificates/1234",
    },
    "change_profile": {"nickname": "爱吃可颂的小周", "city": "上海", "bio": "周末烤面包"},
    # Open are the last 31 days since one registered, before today.
    "make_up_check_in": {"day": "2026-01-01"},
    "record_touch": {"channel": "douyin", "visitor_id": "device-1"},
    "claim_coupon_by_code": {"code": "SPRING20"},
    "preview_order": {"plan_code": "black-card-3m"},
    "place_order": {"plan_code": "black-card-3m", "payment_method": "wechat_pay"},
    "request_invoice": {
        "title": "福州烘焙有限公司",
        "tax_id": "91350100M000100Y43",
        "email": "finance@example.com",
    },
    "change_card": {},
    "refund_order": {"reason": "不想要了"},
    # Codes come from codes.csv or a gift's order; this one is nobody's.
    "report_entry": {"reason": "stolen", "text": "这是我去年发在微博上的照片"},
    "report_comment": {"reason": "spam"},
    "redeem_code": {"code": "7K3M-Q9TX-04HB-WZ5R"},
    "save_progress": {"position_s": 60, "watched": [[0, 60]]},
    "rate_lesson": {"score": 5, "comment": "讲得清楚"},
    # Tokens come from a friend's link; this one is nobody's.
    "record_arrival": {"token": "h0mem4debread123"},
    "ask_question": {"text": "黄油要软化到什么程度？"},
    "answer_question": {"text": "手指按下去有一个浅坑就可以。"},
    "request_lesson": {"title": "想学：中种北海道吐司"},
    "send_heartbeat": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:01:00Z"},
    # Ids come from `POST /v1/uploads`; this one is nobody's.
    "submit_entry": {
        "title": "草莓蛋糕",
        "story": "第一次做，切面有点歪。",
        "upload_ids": ["01990d3f-6c00-7000-8000-00000000beef"],
    },
    "comment_on_entry": {"text": "切面真漂亮！"},
    # A partner's programme
    "create_link": {"title": "课堂海报", "channel": "douyin"},
    "create_endpoint": {
        "url": "https://partner.example.com/heika",
        "events": ["member.registered", "order.paid", "commission.created"],
    },
    "change_endpoint": {"events": ["order.paid", "order.refunded"], "status": "active"},
    "replay_range": {"since": "2026-01-01T00:00:00Z", "status": "failed"},
    # The sandbox
    "write_wechat_user": {"openid": "demo-openid", "js_code": "demo-js-code"},
    "put_faults": {"faults": []},
    "pay_session": {},
    "put_payer": {"next_charges": ["fail", "require_action", "succeed"]},
    # Ids come from the list of orders; one that nobody has is refused by name.
    "make_dispute": {"order_id": "01990d3f-6c00-7000-8000-00000000beef", "outcome": "opened"},
    "move_sandbox_clock": {"advance": "P31D"},
}
"""A body for each operation that takes JSON, by its id."""

FORMS: Final[dict[str, dict[str, str]]] = {
    "issue_tokens": {
        "grant_type": "password",
        "username": "admin@heika.local",
        "password": "the-password-shown-at-the-first-start",
    },
    "import_courses": {
        "file": "course,category,level,access,amount,description,lesson,lesson_description,duration_s\n"
        "周末烤吐司,bread,beginner,free,,从揉面到出炉。,第一课：揉面,揉到出膜。,600\n",
    },
    "import_members": {"file": "nickname,phone,labels,tier\n爱吃可颂的小周,13900000003,线下沙龙,beginner\n"},
    # Ids come from the list of members; one that nobody has is refused by name.
    "grant_in_bulk": {"file": "member_id,note\n01990d3f-6c00-7000-8000-00000000beef,四月沙龙的志愿者\n"},
    "attach_file": {"lesson_id": "01990d3f-6c00-7000-8000-00000000beef", "file": "（配方 PDF / the recipe as a PDF）"},
    "upload_picture": {"file": "（一张照片 / a picture）"},
}
"""A form for each operation that takes one; of a file, its text."""

PARAMETERS: Final[dict[str, dict[str, str]]] = {
    "read_plan_to_edit": {"code": "black-card-1m"},
    "change_plan": {"code": "black-card-1m"},
    "read_plan": {"code": "black-card-1m"},
    "rename_channel": {"code": _SHOP},
    "retire_channel": {"code": _SHOP},
    "read_sent_code": {"phone": _PHONE},
}
"""Names for parameters, by operation and parameter; ids differ from one sandbox to the next and are not guessed."""


def fill_in(operation: dict[str, Any]) -> dict[str, Any]:
    """The operation with its examples."""
    name = operation.get("operationId", "")
    if (body := BODIES.get(name, FORMS.get(name))) is not None and "requestBody" in operation:
        request = operation["requestBody"]
        content = {kind: media | {"example": body} for kind, media in request["content"].items()}
        operation = operation | {"requestBody": request | {"content": content}}
    if (values := PARAMETERS.get(name)) is not None:
        parameters = [
            item | {"example": values[item["name"]]} if item["name"] in values else item
            for item in operation.get("parameters", [])
        ]
        operation = operation | {"parameters": parameters}
    return operation
