"""What a reply is worth: attributes that anyone can count, and their common scale."""

from persona.rewards.attributes import ATTRIBUTES, AttributeScale, measure_attributes

__all__ = ["ATTRIBUTES", "AttributeScale", "measure_attributes"]
