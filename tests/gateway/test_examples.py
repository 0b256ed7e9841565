"""The examples of the documentation pages, executed as given on a Heika started as a newcomer starts it."""

import io
import json
from typing import Any

import httpx
from PIL import Image

from gateway.examples import BODIES, FORMS, PARAMETERS
from tests.onebox.conftest import Heika


class Walk:
    """Executes operations with nothing but their examples, and ids that earlier answers held."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.operations = {
            operation["operationId"]: (method, path, operation)
            for path, item in client.get("/openapi.json").json()["paths"].items()
            for method, operation in item.items()
        }
        self.headers: dict[str, str] = {}
        self.done: set[str] = set()

    def run(self, name: str, expected: int, **ids: str) -> Any:
        """Execute one; `ids` fill what has no example."""
        method, path, operation = self.operations[name]
        headers, query = dict(self.headers), dict[str, Any]()
        for parameter in operation.get("parameters", []):
            given = ids.get(parameter["name"], parameter.get("example"))
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", str(given))
            elif given is not None:
                (headers if parameter["in"] == "header" else query)[parameter["name"]] = given
        content = operation.get("requestBody", {}).get("content", {})
        body: dict[str, Any] = {}
        for kind, media in content.items():
            form = media["example"]
            if kind == "multipart/form-data":
                words = {key: value for key, value in form.items() if key != "file"}
                body = {"files": {"file": ("example.csv", form["file"], "text/csv")}, "data": words}
            else:
                body = {"json" if kind == "application/json" else "data": form}
        answer = self.client.request(method, path, params=query, headers=headers, **body)
        assert answer.status_code == expected, f"{name}: {answer.status_code} {answer.text}"
        assert str(expected) in operation["responses"], f"{name}: {expected} is not described"
        self.done.add(name)
        return answer.json() if answer.content else None


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "peru").save(file, "JPEG")
    return file.getvalue()


def test_every_example_works_as_given(heika: Heika) -> None:
    with httpx.Client(base_url=heika.address, timeout=60) as client:
        walk = Walk(client)
        form = {
            "grant_type": "password",
            "username": "admin@heika.local",
            "password": json.loads((heika.data / "secrets.json").read_text())["HEIKA_ADMIN_PASSWORD"],
        }
        admin = {"Authorization": f"Bearer {client.post('/v1/auth/token', data=form).json()['access_token']}"}

        walk.headers = admin
        walk.run("create_plan", 201)
        walk.run("read_plan_to_edit", 200)
        walk.run("change_plan", 200)
        walk.run("issue_tokens", 400)
        compared = walk.run("reconcile_day", 201)
        assert compared["differences"] == []
        walk.run("repair_difference", 404, reconciliation_id=compared["id"], difference_id=compared["id"])
        walk.run("confirm_totp", 409)
        walk.run("remove_totp", 409)
        walk.run("create_code_batch", 201)
        walk.run("create_channel", 201)
        walk.run("rename_channel", 200)
        walk.run("create_referral_rule", 201)
        campaign = walk.run("create_campaign", 201)["id"]
        walk.run("edit_campaign", 200, campaign_id=campaign)
        assert walk.run("grant_coupons", 201, campaign_id=campaign)["refused"][0]["code"] == "member_unknown"
        walk.run("grant_in_bulk", 202, campaign_id=campaign)
        walk.run("import_members", 202)
        walk.run("import_courses", 201)
        walk.run("attach_file", 404)
        course = walk.run("create_course", 201)["id"]
        walk.run("change_course", 200, course_id=course)
        written = walk.run("create_lesson", 201, course_id=course)["id"]
        walk.run("change_lesson", 200, lesson_id=written)
        teacher = walk.run("create_instructor", 201)["id"]
        walk.run("change_instructor", 200, instructor_id=teacher)
        series = walk.run("create_series", 201)["id"]
        walk.run("change_series", 200, series_id=series)
        live = walk.run("create_live_lesson", 201)["id"]
        walk.run("change_live_lesson", 200, lesson_id=live)
        walk.run("move_live_lesson", 200, lesson_id=live)
        walk.run("grant_live_access", 201, lesson_id=live)
        walk.run("set_share_switches", 200)
        walk.run("set_invite_switches", 200)
        walk.run("answer_lesson_request", 404, lesson_id=live)
        partner = walk.run("create_partner", 201)
        walk.run("change_partner", 200, partner_id=partner["id"])
        walk.run("create_payout_run", 409)
        walk.run("resolve_fraud_case", 404, case_id=partner["id"])
        client_form = {"grant_type": "client_credentials"} | {
            name: partner[name] for name in ("client_id", "client_secret")
        }
        walk.headers = {
            "Authorization": f"Bearer {client.post('/v1/auth/token', data=client_form).json()['access_token']}"
        }
        walk.run("create_link", 201)
        endpoint = walk.run("create_endpoint", 201)["id"]
        walk.run("change_endpoint", 200, endpoint_id=endpoint)
        assert walk.run("replay_range", 202, endpoint_id=endpoint) == {"replayed": 0}
        walk.headers = admin
        contest = walk.run("create_contest", 201)["id"]
        walk.run("change_contest", 200, contest_id=contest)
        quarantined = walk.run("quarantine_votes", 200, contest_id=contest)
        assert quarantined["matched"] == 0

        walk.headers = {}
        walk.run("put_faults", 200)
        walk.run("write_wechat_user", 201)
        walk.run("log_in_by_wechat", 200)
        walk.run("read_plan", 200)
        walk.run("record_touch", 201)
        walk.run("send_code", 202)
        code = walk.run("read_sent_code", 200)["code"]
        # The one example that cannot be known beforehand is the code that was sent.
        walk.run("verify_code", 401)
        walk.run("refresh_tokens", 401)
        signed_in = client.post("/v1/auth/otp/verify", json=BODIES["verify_code"] | {"code": code}).json()
        walk.headers = member = {"Authorization": f"Bearer {signed_in['access_token']}"}
        walk.run("change_profile", 200)
        walk.run("make_up_check_in", 422)
        walk.run("bind_phone", 401)
        walk.run("claim_coupon_by_code", 201)
        walk.run("preview_order", 200)
        order = walk.run("place_order", 201)
        walk.run("pay_session", 200, session_id=order["checkout"]["url"].rsplit("/", 1)[1])
        assert client.get(f"/v1/orders/{order['id']}?refresh=true", headers=member).json()["status"] == "paid"
        lesson = client.get("/v1/courses?access=free&limit=1").json()["items"][0]["lessons"][0]["id"]
        walk.run("save_progress", 200, lesson_id=lesson)
        walk.run("rate_lesson", 200, lesson_id=lesson)
        walk.run("upload_picture", 415)
        upload = client.post("/v1/uploads", headers=member, files={"file": ("cake.jpg", picture(), "image/jpeg")})
        work = {"title": "我的蛋糕", "story": "第一次", "upload_ids": [upload.json()["id"]]}
        opened = client.get("/v1/contests?phase=open").json()["items"][0]["id"]
        walk.run("submit_entry", 422, contest_id=opened)
        entry = client.post(f"/v1/contests/{opened}/entries", headers=member, json=work).json()["id"]
        said = walk.run("comment_on_entry", 201, entry_id=entry)["id"]
        # One's own is withdrawn, not reported.
        walk.run("report_entry", 403, entry_id=entry)
        walk.run("report_comment", 403, entry_id=entry, comment_id=said)
        walk.run("record_arrival", 404)
        walk.run("request_lesson", 201)
        opened_to = {"member_id": signed_in["member"]["id"], "reason": "例子"}
        for path, body in (("grants", opened_to), ("transitions", {"to": "live"})):
            client.post(f"/v1/admin/live-lessons/{live}/{path}", headers=admin, json=body).raise_for_status()
        question = walk.run("ask_question", 201, lesson_id=live)["id"]
        walk.run("answer_question", 201, question_id=question)
        walk.run("send_heartbeat", 200, lesson_id=live)
        invoice = walk.run("request_invoice", 201, order_id=order["id"])["id"]
        walk.headers = admin
        walk.run("resolve_invoice_request", 200, request_id=invoice)
        walk.headers = member
        walk.run("redeem_code", 404)
        walk.run("change_card", 404)
        walk.run("refund_order", 201, order_id=order["id"])
        certificate = walk.run("apply_with_certificate", 201)["id"]

        walk.headers = admin
        walk.run("moderate_entry", 200, entry_id=entry)
        walk.run("resolve_report", 404, report_id=said)
        walk.run("create_feature", 404)
        walk.run("change_feature", 404, feature_id=entry)
        walk.run("change_member", 200, member_id=signed_in["member"]["id"])
        walk.run("grant_membership", 201, member_id=signed_in["member"]["id"])
        walk.run("refund_order_as_admin", 409, order_id=order["id"])
        walk.run("take_invoice_back", 200, request_id=invoice)
        walk.run("cancel_subscription_as_admin", 404, subscription_id=invoice)
        walk.run("impersonate_member", 201, member_id=signed_in["member"]["id"])
        walk.run("decide_certificate", 200, certificate_id=certificate)
        walk.run("put_payer", 200, member_id=signed_in["member"]["id"])
        walk.run("make_dispute", 404)
        walk.run("retire_channel", 204)
        walk.run("move_sandbox_clock", 200)

        assert walk.done == BODIES.keys() | FORMS.keys() | PARAMETERS.keys()
