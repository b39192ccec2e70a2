"""From footage to crops of people: sources, detection, tracking, quality, crops with their sightings."""
