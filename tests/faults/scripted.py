"""The scripted model, which `buildscripts/chaos` uses too: see buildscripts/lib/scripted.py."""

from buildscripts.lib.scripted import Script, ScriptedModel

__all__ = ["Script", "ScriptedModel"]
