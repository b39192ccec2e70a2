"""What a training leaves and is made from: recipe, folder, checkpoint, history."""
