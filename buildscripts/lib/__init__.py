"""The modules behind the commands of buildscripts/."""
