"""What the services tell one another: events, the coupon token, the calendar rule."""
