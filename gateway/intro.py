"""What the documentation pages open with: the rules of every call, and an admin's daily work from these pages alone."""

from typing import Final

_RULES: Final = """\
会员、订单、课程与直播、优惠与推荐、作品比赛，都在这一个地址之下。金额以分为单位；时刻为 UTC（`Z` 结尾）；错误是 \
`application/problem+json`，`code` 稳定，`detail` 随 `Accept-Language`（默认中文）。

Members, orders, courses and live lessons, coupons and referrals, works and contests, at one address. Money is in \
fen; instants are UTC with `Z`; errors are `application/problem+json` with a stable `code` and a `detail` in the \
language of `Accept-Language` (Chinese by default). Use Authorize to log an admin in by e-mail and password."""

_CHINESE: Final = """\
### 管理员：在本页完成日常工作

点 **Authorize**，在 *admin* 里填邮箱和密码（启用动态口令的，把 6 位口令接在密码后面），登录；权限不必勾选，不选即得全部。\
登录 15 分钟后过期，重新 Authorize 即可。展开一个接口，点 **Try it out**、改好示例、点 **Execute**；`{…_id}` 从列表接口的答复里抄。

- **改动不互相覆盖**：先读一次，把答复头里的 `ETag`（连同引号）填进 `If-Match`；期间有人改过则 412，重读再改。
- **重试不做两次**：`Idempotency-Key` 每次新操作用新的，重试用同一个；必填的本页已代填，做成一笔后自动换新。

| 要做的事 | 接口（标签） |
|---|---|
| 套餐与价格 | `GET`、`POST /v1/admin/plans`，`PATCH /v1/admin/plans/{code}`：改价即新版本，已下的订单不变（admin plans） |
| 优惠券活动 | `POST /v1/admin/coupon-campaigns`，用 `…/stats` 看效果，`…/grants` 定向发放（admin coupons） |
| 兑换码 | `POST /v1/admin/redeem-code-batches`，再 `GET …/{batch_id}/codes.csv`：只能下载一次（admin codes） |
| 审核作品 | `GET /v1/admin/entries?status=pending`，`POST …/{entry_id}/moderation`；举报看 `GET /v1/admin/reports`（admin contests） |
| 比赛结算 | 结束后 `POST /v1/admin/contests/{contest_id}/quarantine`（先 `dry_run`）剔除刷票，再 `…/settle`（admin contests） |
| 退款 | `GET /v1/admin/orders?number=…` 找订单，`…/refund-preview` 看可退多少，`…/refunds` 退款；不填 `amount` 即全退并收回时长（admin orders） |
| 作弊案件 | `GET /v1/admin/fraud-cases?status=open`，看 `evidence` 与 `held`，`…/resolution`：`release` 放行、`void` 作废（admin referrals） |
| 付合作伙伴 | `POST /v1/admin/payout-runs`，下载 `…/items.csv` 去银行付款，付完 `POST …/{run_id}/paid`（admin partners） |
| 对账 | 每天 `POST /v1/admin/reconciliations`，逐条看 `differences`，按 `repair` 处理；`GET /v1/admin/ledger/trial-balance` 应为 `balanced: true`（admin ledger） |
| 会员 | `GET /v1/admin/members?q=…`，冻结、标签用 `PATCH`，补偿时长用 `…/membership-grants`；谁做过什么看 `GET /v1/admin/audit`（admin members） |"""

_ENGLISH: Final = """\
### Admins: a day's work from this page

Press **Authorize**, fill in e-mail and password under *admin* (with one-time passwords on, the six digits right after \
the password), log in; scopes need no ticking, without any you get all of yours. A login lasts 15 minutes; authorize \
again after it. Open an operation, press **Try it out**, change the example, press **Execute**; `{…_id}` is copied from what a list answers.

- **No overwriting one another**: read first and put the answer's `ETag` header, quotes included, into `If-Match`; 412 \
says that somebody changed it since: read again.
- **No doing it twice**: a fresh `Idempotency-Key` for each new act, the same for its retries; where one is \
required this page fills it in, and takes another once the act is done.

| To do | Operations (tag) |
|---|---|
| Plans and prices | `GET`, `POST /v1/admin/plans`, `PATCH /v1/admin/plans/{code}`: a new price is a new version, orders keep theirs (admin plans) |
| Coupon campaigns | `POST /v1/admin/coupon-campaigns`; `…/stats` says what came of it, `…/grants` gives to chosen members (admin coupons) |
| Redeem codes | `POST /v1/admin/redeem-code-batches`, then `GET …/{batch_id}/codes.csv`: downloaded once only (admin codes) |
| Moderate works | `GET /v1/admin/entries?status=pending`, `POST …/{entry_id}/moderation`; reports: `GET /v1/admin/reports` (admin contests) |
| Settle a contest | after its end `POST /v1/admin/contests/{contest_id}/quarantine` (`dry_run` first) takes out bought votes, then `…/settle` (admin contests) |
| Refund | find the order by `GET /v1/admin/orders?number=…`, `…/refund-preview` says how much, `…/refunds` does it; without `amount` it is all, and the time goes too (admin orders) |
| Fraud cases | `GET /v1/admin/fraud-cases?status=open`, look at `evidence` and `held`, `…/resolution`: `release` pays, `void` gives up (admin referrals) |
| Pay partners | `POST /v1/admin/payout-runs`, take `…/items.csv` to the bank, then `POST …/{run_id}/paid` (admin partners) |
| Reconcile | each day `POST /v1/admin/reconciliations`, go through `differences`, each with its `repair`; `GET /v1/admin/ledger/trial-balance` says `balanced: true` (admin ledger) |
| Members | `GET /v1/admin/members?q=…`; freeze and label by `PATCH`, compensate by `…/membership-grants`; who did what: `GET /v1/admin/audit` (admin members) |"""

INFO: Final = {
    "title": "Heika 黑卡",
    "version": "1",
    "summary": "付费学习社区的后端 / the backend of a paid learning community",
    "description": f"{_RULES}\n\n{_CHINESE}\n\n{_ENGLISH}",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}
"""The document's `info`."""
