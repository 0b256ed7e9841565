"""Courses: what is taught, who may watch it, and what was learned.

Owns: course, lesson, progress, completion, rating, access, purchase, live lesson, enrolment, way in, room, question,
attendance, lesson request, calendar link, lesson work.
Emits: LessonCompleted, WorkFiled, CourseChanged, LiveLessonCanceled, QuestionAsked, QuestionUpvoted, QuestionUpvoteUndone,
PointsWanted, PointsReturned, CoursesNoticeWanted.
Listens: MembershipChanged, MemberRegistered, MemberChanged, MemberErased, MemberMerged, PointsChanged, PointsAnswered,
OrderPaid, OrderRefunded, OrderDisputed, EntryChanged, EntryFeatured, EntryPlaced.
"""
