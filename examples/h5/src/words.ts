/** Amounts, days and statuses as people read them. */

const ZONE = "Asia/Shanghai";
const DAY = new Intl.DateTimeFormat("zh-CN", { timeZone: ZONE, year: "numeric", month: "long", day: "numeric" });
const HOUR = new Intl.DateTimeFormat("zh-CN", {
  timeZone: ZONE, month: "long", day: "numeric", weekday: "short", hour: "2-digit", minute: "2-digit", hour12: false,
});

export const day = (instant: string): string => DAY.format(new Date(instant));
export const hour = (instant: string): string => HOUR.format(new Date(instant));

/** How long a recording is. */
export const minutes = (seconds: number): string => seconds < 60 ? `${seconds} 秒` : `${Math.round(seconds / 60)} 分钟`;

/** Fen as yuan: 4900 is ¥49, 1990 is ¥19.90. */
export const money = (fen: number): string => `¥${fen % 100 ? (fen / 100).toFixed(2) : fen / 100}`;

export const BENEFITS: Record<string, string> = {
  member_lessons: "会员课程全部可看",
  live_replay: "直播随时回放",
  live_priority: "直播优先席位",
  monthly_coupon: "每月一张优惠券",
  double_points: "签到双倍积分",
  qa_priority: "提问优先回答",
};

export const TIERS: Record<string, string> = {
  potential: "潜力新人",
  beginner: "入门烘焙师",
  enthusiast: "烘焙爱好者",
  expert: "烘焙达人",
  instructor: "烘焙讲师",
};

export const ORDERS: Record<string, string> = {
  pending: "待支付",
  paid: "已支付",
  canceled: "已取消",
  expired: "已过期",
  partially_refunded: "部分退款",
  refunded: "已退款",
  disputed: "争议处理中",
};

export const LESSONS: Record<string, string> = {
  scheduled: "即将开播",
  live: "直播中",
  paused: "暂停中",
  ended: "已结束",
  replay_ready: "可看回放",
  canceled: "已取消",
};

export const METHODS = { wechat_pay: "微信支付", alipay: "支付宝", card: "银行卡" } as const;

export const PLANS: Record<string, string> = {
  "black-card-1m": "黑卡月卡",
  "black-card-3m": "黑卡季卡",
  "black-card-12m": "黑卡年卡",
};
