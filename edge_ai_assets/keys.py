"""Every asset key, group and owner of both code locations. Imported, never retyped."""

from dagster import AssetKey

LANDING = AssetKey(["lake", "landing"])
RAW_TELEMETRY = AssetKey(["lake", "raw_telemetry"])
TRAINING_SET = AssetKey(["lake", "training_set"])
CANDIDATE = AssetKey(["model", "candidate"])
CHAMPION = AssetKey(["model", "champion"])
IMAGE = AssetKey(["release", "image"])
BUNDLE = AssetKey(["release", "bundle"])

SITE_RELEASE = AssetKey(["site", "release"])
SITE_DEPLOYMENT = AssetKey(["site", "deployment"])
SITE_SCORES = AssetKey(["site", "scores"])
SITE_INSIGHTS = AssetKey(["site", "insights"])
SITE_EGRESS = AssetKey(["site", "egress"])
SITE_UPLOAD = AssetKey(["site", "upload"])

INBOX = AssetKey(["global", "inbox"])
HISTORY = AssetKey(["global", "history"])
INSIGHTS = AssetKey(["global", "insights"])
FEEDBACK = AssetKey(["global", "feedback"])
DRIFT = AssetKey(["global", "drift"])
SEMANTIC_MODEL = AssetKey(["global", "semantic_model"])
REPORT = AssetKey(["global", "report"])

DATA_ENGINEERING = "team:data-engineering"
DATA_SCIENCE = "team:data-science"
PLATFORM = "team:platform"
SITE_OPERATIONS = "team:site-operations"
