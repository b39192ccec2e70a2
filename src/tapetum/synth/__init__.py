"""The generated night scene: people, lamps and a sensor, rendered to pictures and video."""
