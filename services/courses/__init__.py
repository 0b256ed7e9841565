"""Courses: what is taught, who may watch it, and what was learned.

Owns: course, lesson, progress, completion, rating, access, purchase, live lesson, enrolment.
Emits: LessonCompleted, CourseChanged.
Listens: MembershipChanged, MemberErased, MemberMerged, OrderPaid, OrderRefunded, OrderDisputed.
"""
