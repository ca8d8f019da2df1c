"""Does an equilibrium model stand noise better than a deep circuit of equal accuracy?"""
