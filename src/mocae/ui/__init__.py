"""The chat page: a finished run in a browser, answered by the engine that also serves it."""

from mocae.ui.talk import Answer, Question, Talk
from mocae.ui.why import Plane, Why, explain

__all__ = ["Answer", "Plane", "Question", "Talk", "Why", "explain"]
