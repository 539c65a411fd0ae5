"""The files that people take away: manifest, provenance, failures, named images; and whose folder it is."""
