"""Pictures and pages for people: contact sheets and the report."""
