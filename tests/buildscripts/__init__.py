"""Tests of the commands of buildscripts/."""
